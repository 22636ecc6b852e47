"""For tests: a batch interface on the loopback address, with files, batches and what goes wrong with them."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from tests.loopback import Answer
from tests.served import running

Respond = Callable[[dict[str, Any], int], Answer]


@dataclass
class Batches:
    """A running server, what came to it, and how it behaves.

    Attributes:
        url: its address.
        respond: the answer to a line, by the body of its request and the number of lines before it.
        polls: looks at a batch before it has ended.
        ending: by number of the batch, the status with which it ends if not `completed`.
        done: by number of the batch, the share of its lines that are done by then.
        faults: answers in place of the interface's own, by `METHOD path`, each given once.
        lost: number of batches whose ids get lost on their way.
        before: what happens when a call has come, by `METHOD path`.
        after: the same when it is done, and its answer not yet sent.
        rewrite: changes an output file before it goes out.
    """

    respond: Respond
    url: str = ""
    polls: int = 2
    ending: dict[int, str] = field(default_factory=dict)
    done: dict[int, float] = field(default_factory=dict)
    errors: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    faults: dict[str, list[Answer]] = field(default_factory=dict)
    lost: int = 0
    before: dict[str, Callable[[], None]] = field(default_factory=dict)
    after: dict[str, Callable[[], None]] = field(default_factory=dict)
    rewrite: Callable[[bytes], bytes] = lambda content: content
    files: dict[str, bytes] = field(default_factory=dict)
    batches: list[dict[str, Any]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def sizes(self) -> list[int]:
        """Number of requests in each batch."""
        return [batch["request_counts"]["total"] for batch in self.batches]

    def handle(self, method: str, path: str, query: dict[str, list[str]], body: bytes, kind: str) -> Answer:
        """The answer to one HTTP request."""
        name = f"{method} {re.sub(r'(batch|file)-[0-9]+', 'ID', path)}"
        with self.lock:
            self.calls.append(f"{method} {path}")
            self.before.get(name, lambda: None)()
            answer = (
                waiting.pop(0) if (waiting := self.faults.get(name)) else self._answer(method, path, query, body, kind)
            )
            self.after.get(name, lambda: None)()
            return answer

    def _answer(self, method: str, path: str, query: dict[str, list[str]], body: bytes, kind: str) -> Answer:
        if (method, path) == ("POST", "/v1/files"):
            return self._upload(body, kind)
        if (method, path) == ("POST", "/v1/batches"):
            return self._create(orjson.loads(body))
        if (method, path) == ("GET", "/v1/batches"):
            return self._list(query)
        if method == "GET" and (found := re.fullmatch(r"/v1/batches/batch-([0-9]+)", path)):
            return self._poll(int(found[1]))
        if method == "GET" and (found := re.fullmatch(r"/v1/files/(file-[0-9]+)/content", path)):
            return Answer(self.rewrite(self.files[found[1]]))
        return Answer({"error": {"message": f"no such path: {path}"}}, 404)

    def _new_file(self, content: bytes) -> str:
        self.files[name := f"file-{len(self.files)}"] = content
        return name

    def _upload(self, body: bytes, kind: str) -> Answer:
        boundary = re.search("boundary=(.+)", kind)
        assert boundary is not None
        parts = body.split(b"--" + boundary[1].encode())[1:-1]
        fields = {}
        for part in parts:
            head, _, content = part.partition(b"\r\n\r\n")
            name = re.search(rb'name="([^"]+)"', head)
            assert name is not None
            fields[name[1].decode()] = content.removesuffix(b"\r\n")
        assert fields["purpose"] == b"batch"
        made = self._new_file(fields["file"])
        return Answer({"id": made, "object": "file", "bytes": len(fields["file"]), "purpose": "batch"})

    def _create(self, body: dict[str, Any]) -> Answer:
        lines = [orjson.loads(line) for line in self.files[body["input_file_id"]].splitlines()]
        counts = {"total": len(lines), "completed": 0, "failed": 0}
        batch = {
            **{"id": f"batch-{len(self.batches)}", "object": "batch", "status": "validating", "polls": 0},
            **{"created_at": 4_000_000_000, "request_counts": counts, "output_file_id": None, "error_file_id": None},
            **body,
        }
        self.batches.append(batch)
        self.lost -= 1
        return Answer(batch) if self.lost < 0 else Answer({"error": {"message": "lost"}}, 500)

    def _list(self, query: dict[str, list[str]]) -> Answer:
        found = self.batches[::-1]
        if after := query.get("after"):
            found = found[[batch["id"] for batch in found].index(after[0]) + 1 :]
        page = found[: min(2, int(query["limit"][0]))]
        more = len(page) < len(found)
        return Answer({"object": "list", "data": page, "has_more": more, "last_id": page[-1]["id"] if page else None})

    def _poll(self, number: int) -> Answer:
        batch = self.batches[number]
        batch["polls"] += 1
        if batch["status"] in ("validating", "in_progress"):
            batch["status"] = "in_progress"
            if batch["polls"] > self.polls:
                self._end(number, batch)
        return Answer(batch)

    def _end(self, number: int, batch: dict[str, Any]) -> None:
        batch["status"] = self.ending.get(number, "completed")
        if batch["status"] == "failed":
            batch["errors"] = {"object": "list", "data": self.errors[number]}
            return
        lines = [orjson.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        done = round(len(lines) * self.done.get(number, 1.0))
        good: list[dict[str, Any]] = []
        bad: list[dict[str, Any]] = []
        for line in lines[:done]:
            answer = self.respond(line["body"], len(self.asked))
            self.asked.append(line["custom_id"])
            response = {"status_code": answer.status, "request_id": "r", "body": answer.body}
            out = {"id": "x", "custom_id": line["custom_id"], "response": response, "error": None}
            (good if answer.status == 200 else bad).append(out)
        batch["request_counts"] |= {"completed": len(good), "failed": len(bad)}
        if batch["status"] == "expired":
            error = {"code": "batch_expired", "message": "could not be executed in time"}
            bad += [
                {"id": "x", "custom_id": line["custom_id"], "response": None, "error": error} for line in lines[done:]
            ]
        for name, out_lines in (("output_file_id", good[::-1]), ("error_file_id", bad)):
            if out_lines:
                batch[name] = self._new_file(b"".join(orjson.dumps(line) + b"\n" for line in out_lines))


@contextmanager
def batch_server(respond: Respond, **behaviour: Any) -> Iterator[Batches]:
    """Serve a batch interface on a free port."""
    served = Batches(respond, **behaviour)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_args: object) -> None:
            """Nothing."""

        def answer(self) -> None:
            """Any request."""
            url = urlsplit(self.path)
            if self.headers.get("transfer-encoding") == "chunked":
                body = b"".join(iter(self.chunk, b""))
            else:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
            served.keys.add(self.headers.get("authorization", ""))
            kind = self.headers.get("content-type", "")
            answer = served.handle(self.command, url.path, parse_qs(url.query), body, kind)
            content = answer.content()
            self.send_response(answer.status)
            for name, value in {"content-type": "application/json", **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if answer.cut else content)
            self.close_connection = self.close_connection or answer.cut

        def chunk(self) -> bytes:
            """The next part of a body that is sent in parts."""
            content = self.rfile.read(int(self.rfile.readline(), 16))
            self.rfile.readline()
            return content

        do_GET = do_POST = answer  # noqa: N815

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    served.url = f"http://127.0.0.1:{listening.server_address[1]}/v1"
    with running(listening):
        yield served
