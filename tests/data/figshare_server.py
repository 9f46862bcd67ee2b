"""A server that answers as figshare does, or goes wrong as told, for the tests of downloading."""

import hashlib
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from threading import Event

import pytest

from sslbt.data.figshare import Remote, download
from sslbt.errors import UserError

CONTENTS = {"a.zip": Random(1).randbytes(300_000), "b.mat": Random(2).randbytes(5_000)}


IDS = {"a.zip": 11, "b.mat": 22}


A, B = FILES = [Remote(name, IDS[name], hashlib.md5(data).hexdigest()) for name, data in CONTENTS.items()]


WHOLE = CONTENTS["a.zip"]


@dataclass
class Answer:
    """What the storage does with one request; by default, what it should."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    only: int | None = None  # bytes of the promised body
    stall: bool = False  # then, instead of hanging up
    mute: bool = False
    sized: bool = True
    ranges: bool = True
    wrong_range: bool = False
    corrupt: bool = False


class Figshare(ThreadingHTTPServer):
    """Redirects /files/ID to /storage/NAME, as figshare does, and serves a mirror under other paths."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = f"http://127.0.0.1:{self.server_port}"
        self.base = self.root + "/files/{id}"
        self.answers: list[Answer] = []
        self.always: Answer = Answer()
        self.paths: list[str] = []
        self.ranges: list[str | None] = []  # asked of the storage, in order
        self.encodings: set[str | None] = set()
        self.go_on = Event()


class Handler(BaseHTTPRequestHandler):
    server: Figshare
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def redirect(self, where: str) -> None:
        self.send_response(302)
        self.send_header("Location", where)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        server, path = self.server, self.path.partition("?")[0]
        server.paths.append(path)
        server.encodings.add(self.headers["Accept-Encoding"])
        if path.startswith("/files/"):
            name = next(name for name, number in IDS.items() if path == f"/files/{number}")
            self.redirect(f"{server.root}/storage/{name}?signature=x%2Fy")
        elif path.startswith("/loop/"):
            self.redirect(path)
        elif path.startswith("/local/"):
            self.redirect("file:///etc/passwd")
        else:
            server.ranges.append(self.headers["Range"])
            self.serve(CONTENTS[path.split("/")[-1]], server.answers.pop(0) if server.answers else server.always)

    def serve(self, body: bytes, answer: Answer) -> None:
        first = int(self.headers.get("Range", "bytes=0-")[6:-1]) if answer.ranges else 0
        partial = answer.ranges and "Range" in self.headers
        status = answer.status or (200 if not partial else 206 if first < len(body) else 416)
        if answer.corrupt:
            body = bytes(byte ^ 1 for byte in body)
        rest = body[first:] if status in (200, 206) else b"some words"
        if answer.mute:
            self.server.go_on.wait(60)
        self.send_response(status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if status == 206:
            said = first + 7 if answer.wrong_range else first
            self.send_header("Content-Range", f"bytes {said}-{len(body) - 1}/{len(body)}")
        if answer.sized:
            self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: answer.only])
        self.close_connection = True
        if answer.stall:
            self.server.go_on.wait(60)


def refused(folder: Path, base: str) -> str:
    with pytest.raises(UserError) as caught:
        download(folder, base, [A])
    assert not (folder / "a.zip").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def a_part(folder: Path, data: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "a.zip.part").write_bytes(data)
    return folder / "a.zip.part"


def right(folder: Path) -> bool:
    return (folder / "a.zip").read_bytes() == WHOLE and not (folder / "a.zip.part").exists()
