"""A model endpoint on the loopback address that fails as it is told to: `python -m tests.faultserver --log FILE`.

It runs as a process of its own, so that a client's time and memory can be measured alone, and a client can be killed
without it. A prompt that holds `[[ITEM]]` gets a good reply, one with `[[ITEM FAULT TIMES]]` the fault of that name
(`tests.misbehaviour`) for the first TIMES requests of that item in that role, or for `ever`. Before each answer a line
`role item fault status` is in the log.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import orjson

from tests.misbehaviour import Asked, Sent, completion, events, fault_of, ok, pieces, streamed

ROOT = Path(__file__).parents[1]
MARK = re.compile(rb"\[\[([^\]\s]+)(?: ([^\]\s]+) (\d+|ever))?\]\]")
CRITERION = re.compile(rb'\\"(\w+)\\": <integer from -?\d+ to (-?\d+)>')
LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
SECRET = re.compile(rb"(?i)\r\n(?:authorization: *bearer|api-key:) +([!-~]+)")
SENTENCE = "The third rule of the policy says that no step may be named, so a kind and plain refusal is right here. "


@lru_cache(maxsize=64)
def _reply(role: str, item: str, size: int, body: bytes) -> str:
    """A readable reply to a prompt of the role; `body` is empty but for scores, whose criteria stand in it."""
    if role == "score":
        return json.dumps({name.decode(): int(most) for name, most in CRITERION.findall(body)})
    thinking = f"About {item}. " + SENTENCE * (size // len(SENTENCE))
    return f"<think>\n{thinking}\n</think>\n\nI would rather not, {item}." if role == "reason" else '["Self-Harm"]'


def role_of(body: bytes) -> str:
    """What a prompt of a policy pack asks for, by what it shows."""
    if b"<integer from" in body:
        return "score"
    return "reason" if b"# Policy: " in body else "categorize"


@dataclass
class Plan:
    """How to answer: `size` of reasoning replies [characters] and in how many pieces, shortest and longest wait [s]."""

    log: int
    size: int = 200
    low_s: float = 0.0
    high_s: float = 0.0
    pieces: int = 20
    stand_in: bool = False
    seen: Counter[str] = field(default_factory=Counter)

    def wait_s(self, item: str) -> float:
        """The time until an item's answer leaves, always the same for an item."""
        return self.low_s + (zlib.crc32(item.encode()) % 1000) / 1000 * (self.high_s - self.low_s)

    def answer(self, head: bytes, body: bytes) -> tuple[Sent, float]:
        """What goes back, and after how long [s]."""
        mark = MARK.search(body)
        item = mark[1].decode() if mark else f"{zlib.crc32(body):08x}"
        role = role_of(body)
        place = self.seen[f"{role} {item}"]
        self.seen[f"{role} {item}"] += 1
        name, times = (mark[2].decode(), mark[3].decode()) if mark and mark[2] else ("good", "ever")
        name = name if times == "ever" or place < int(times) else "good"
        sent = self._sent(name, role, item, place, head, body)
        status = sent.data[9:12].decode("ascii", "replace").strip() or "-"
        # One write a line: the log is whole however this or the client's process ends.
        os.write(self.log, f"{role} {item} {name} {status}\n".encode())
        return sent, self.wait_s(item) + sent.wait_s

    def _sent(self, name: str, role: str, item: str, place: int, head: bytes, body: bytes) -> Sent:
        if self.stand_in:
            from star1.standin import answer

            return ok(completion(answer(orjson.loads(body)["messages"]).text, item))
        text = _reply(role, item, self.size, body if role == "score" else b"")
        if name == "good" and b'"stream":true' in body:
            asked = Asked(role, item, place, text)
            return streamed(lambda asked: events(asked, pieces(asked, size=self.size // self.pieces + 1)))(asked)
        if name == "good":
            return ok(completion(text, item))
        secret = SECRET.search(head)
        return fault_of(name)(Asked(role, item, place, text, secret[1].decode() if secret else "none"))


class Connection(asyncio.Protocol):
    """One client's connection: requests one after the other, each answered after its wait."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.buffer = plan, bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where answers go."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer whole requests."""
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.buffer[:end])
            length = LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self.buffer) < whole:
                return
            body = bytes(self.buffer[end + 4 : whole])
            del self.buffer[:whole]
            self._respond(head, body)

    def _respond(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET /v1/models "):
            self._send(ok({"object": "list", "data": [{"id": "m", "object": "model"}]}))
        elif not head.startswith(b"POST /v1/chat/completions "):
            self._send(Sent(b"HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\n\r\nnot found"))
        else:
            sent, wait_s = self.plan.answer(head, body)
            if wait_s:
                asyncio.get_running_loop().call_later(wait_s, self._send, sent)
            else:
                self._send(sent)

    def _send(self, sent: Sent, start: int = 0) -> None:
        if self.transport.is_closing():
            return
        end = start + sent.piece if sent.piece and start + sent.piece < len(sent.data) else len(sent.data)
        self.transport.write(sent.data[start:end] if sent.piece else sent.data)
        if end < len(sent.data):
            asyncio.get_running_loop().call_later(sent.every_s, self._send, sent, end)
        elif sent.end == "reset":
            # What is written must be out before the connection is thrown away.
            asyncio.get_running_loop().call_later(0.01, self.transport.abort)
        elif sent.end == "close":
            self.transport.close()


async def serve(plan: Plan) -> None:
    """Serve until stdin is closed: with the process that started this one."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(plan), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
    server.close()


@dataclass
class Running:
    """A server's address, its process and its log."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    def lines(self, start: int = 0) -> list[list[str]]:
        """The requests so far: role, item, fault and status of each."""
        return [line.split() for line in self.log.read_text().splitlines()[start:]]


@contextmanager
def running(log: Path, *flags: str) -> Iterator[Running]:
    """The server as a process, ended with the block."""
    command = [sys.executable, "-m", "tests.faultserver", "--log", str(log), *flags]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            yield Running(f"http://127.0.0.1:{int(process.stdout.readline())}/v1", process, log)
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.wait(timeout=10)


def main() -> None:
    """Read flags and serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--log", required=True, help="file that gets a line for each request, before its answer")
    parser.add_argument("--size", type=int, default=200, help="of the thinking in reasoning replies [characters]")
    parser.add_argument("--wait", type=float, nargs=2, default=(0.0, 0.0), metavar=("LOW", "HIGH"), help="[s]")
    parser.add_argument("--pieces", type=int, default=20, help="of a streamed reply")
    parser.add_argument("--stand-in", action="store_true", help="answer by the stand-in's rules, without faults")
    flags = parser.parse_args()
    log = os.open(flags.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    low_s, high_s = flags.wait
    asyncio.run(serve(Plan(log, flags.size, low_s, high_s, flags.pieces, flags.stand_in)))


if __name__ == "__main__":
    main()
