"""For tests: a hub on the loopback address with the few endpoints that an upload needs."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.served import running


@dataclass
class Hub:
    """What the hub holds and was asked.

    Attributes:
        url: its address.
        tokens: tokens that may write.
        repositories: files by name, by `dataset owner/name`.
        visibility: of each repository.
        requests: (method, path) in order; validated cards in `cards`.
        fault: status and path part of requests that are refused.
    """

    url: str = ""
    tokens: tuple[str, ...] = ("hf_writing_token",)
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    visibility: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    cards: list[str] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    fault: tuple[int, str] | None = None

    def answer(self, path: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON of a POST."""
        if path == "/api/validate-yaml":
            self.cards.append(json.loads(body)["content"])
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.endswith("/info/lfs/objects/batch"):
            return 200, {"transfer": "basic", "objects": [self._batch(one) for one in json.loads(body)["objects"]]}
        _, _, kind, owner, name, what, *_ = path.split("/")
        files = self.repositories.get(f"{kind[:-1]} {owner}/{name}")
        if files is None:
            return 404, {"error": "Repository not found"}
        if what == "preupload":
            return 200, {"files": [self._mode(one) for one in json.loads(body)["files"]]}
        return 200, self._commit(files, body, f"{self.url}/{kind}/{owner}/{name}/commit/abc")

    def _create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        name = f"{asked['organization']}/{asked['name']}"
        place = f"{asked.get('type', 'model')} {name}"
        url = f"{self.url}/{'datasets/' if place.startswith('dataset') else ''}{name}"
        if place in self.repositories:
            return 409, {"error": "You already created this repo", "url": url}
        self.repositories[place], self.visibility[place] = {}, asked["visibility"]
        return 200, {"url": url, "name": name, "id": "1"}

    def _mode(self, one: dict[str, Any]) -> dict[str, Any]:
        large = one["path"].endswith((".parquet", ".safetensors"))
        return {"path": one["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}

    def _batch(self, one: dict[str, Any]) -> dict[str, Any]:
        return {**one, "actions": {"upload": {"href": f"{self.url}/objects/{one['oid']}"}}}

    def _commit(self, files: dict[str, bytes], body: bytes, url: str) -> dict[str, Any]:
        for line in body.splitlines():
            value = json.loads(line)
            if value["key"] == "file":
                files[value["value"]["path"]] = base64.b64decode(value["value"]["content"])
            elif value["key"] == "lfsFile":
                files[value["value"]["path"]] = self.objects[value["value"]["oid"]]
        return {"success": True, "commitUrl": url, "commitOid": "abc", "pullRequestUrl": None}


@contextmanager
def hub() -> Iterator[Hub]:
    """Serve a hub on a free port."""
    held = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def _send(self, status: int, value: Any) -> None:
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _read(self) -> bytes:
            if (length := self.headers["content-length"]) is not None:
                return self.rfile.read(int(length))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def do_POST(self) -> None:
            body = self._read()
            held.requests.append(("POST", self.path))
            if held.fault and held.fault[1] in self.path:
                # As careless as a server can be.
                self._send(held.fault[0], {"error": f"refused: {self.headers.get('authorization')}"})
            elif self.headers.get("authorization") not in [f"Bearer {one}" for one in held.tokens]:
                self._send(401, {"error": "Invalid credentials in Authorization header"})
            else:
                self._send(*held.answer(self.path, body))

        def do_PUT(self) -> None:
            body = self._read()
            held.requests.append(("PUT", self.path))
            oid = self.path.rsplit("/", 1)[1]
            held.objects[oid] = body
            self._send(200 if hashlib.sha256(body).hexdigest() == oid else 400, {})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    held.url = f"http://127.0.0.1:{server.server_address[1]}"
    with running(server):
        yield held
