"""For tests: a server on the loopback address that stands for GitHub's raw files and API, the hub, and any other address."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.served import running

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FileServer(ThreadingHTTPServer):
    """Serves `files` by path.

    Attributes:
        faults: met first, in order: a dict with status (and headers), or a number of bytes to break off after.
        ranges: whether it knows them.
        etags: whether it names versions; weak ones if "weak".
        commit: what it says the hub's files are of.
        asked: requests as (method, path, range, authorization, if-range).
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.faults: list[Any] = []
        self.asked: list[tuple[str, str, str | None, str | None, str | None]] = []
        self.ranges = True
        self.etags: bool | str = True
        self.commit = COMMIT
        self.address = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that breaks off is what some tests are about."""

    def paths(self) -> list[str]:
        """What was asked for, each once, in order."""
        return list(dict.fromkeys(asked[1] for asked in self.asked))


class _Handler(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        span, token, version = (self.headers.get(name) for name in ("Range", "Authorization", "If-Range"))
        if path.startswith("/api/") and not path.startswith(("/api/datasets/", "/api/models/", "/api/repos/")):
            return self.reply(404, {}, b"", body)  # the hub's library asks for more than data
        self.server.asked.append((self.command, path, span, token, version))
        fault = self.server.faults.pop(0) if self.server.faults else None
        content = self.server.files.get(path)
        if isinstance(fault, dict):
            return self.reply(fault["status"], fault.get("headers", {}), b"", body)
        if content is None:
            return self.reply(404, {"X-Error-Code": "EntryNotFound"}, b"", body)
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        known = self.headers.get("If-Range") in (None, etag)
        start = int(self.headers["Range"][6:-1]) if self.server.ranges and self.headers.get("Range") and known else 0
        if start >= len(content) > 0:
            return self.reply(416, {}, b"", body)
        sent = {"X-Repo-Commit": self.server.commit}
        if self.server.etags:
            sent["ETag"] = f"W/{etag}" if self.server.etags == "weak" else etag
        if start:
            sent["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self.reply(206 if start else 200, sent, content[start:], body, fault)

    def reply(self, status: int, headers: dict[str, str], content: bytes, body: bool, cut: int | None = None) -> None:
        if status == 403:
            headers = {"X-Error-Code": "GatedRepo", **headers}
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content[:cut])
        self.close_connection = self.close_connection or cut is not None


@contextmanager
def serving() -> Iterator[FileServer]:
    """A running server."""
    server = FileServer()
    with running(server):
        yield server
