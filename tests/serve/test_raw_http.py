"""What no client library sends: ambiguous framing, floods, paths out of the folder, callers that never listen."""

import contextlib
import io
import resource
import socket
import sys
import time

import httpx
import numpy as np
import pytest
from PIL import Image

from serve import server
from serve.app import create_app

HOST = b"Host: 127.0.0.1\r\n"
POST = b"POST /invocations HTTP/1.1\r\n" + HOST


@pytest.fixture(scope="module")
def port(current, served):
    with served(create_app(current, names=[])) as port:
        yield port


def connected(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.settimeout(10)
    return connection


def said(connection: socket.socket) -> bytes:
    """All until the service closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize(
    "request_",
    [
        POST
        + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /version HTTP/1.1\r\n"
        + HOST
        + b"\r\n",
        POST + b"Content-Length: 2\r\nContent-Length: 20\r\n\r\n{}",
        POST + b"Content-Length: 2, 2\r\n\r\n{}",
        POST + b"Content-Length: +2\r\n\r\n{}",
        POST + b"Content-Length : 2\r\n\r\n{}",
        POST + b"Content-Length: 99999999999999999999\r\n\r\n{}",
        POST + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        b"GET /version HTTP/1.1\nHost: 127.0.0.1\n\n",
        b"GET /version HTTP/1.1\r\n" + HOST + b"X: a\r\n b: c\r\n\r\n",
        b"GET /version HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    ],
)
def test_what_two_servers_could_read_in_two_ways_is_no_request(port, request_):
    with connected(port) as connection:
        connection.sendall(request_)
        answer = said(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1  # nothing of it was taken for a second request


@pytest.mark.parametrize(
    "path",
    [
        "/static-offline-docs/../app.py",
        "/static-offline-docs/%2e%2e/core.py",
        "/static-offline-docs//etc/passwd",
        "/static-offline-docs/..%2f..%2f..%2f..%2f..%2fetc/passwd",
        "/static-offline-docs/a%00b",
        "/static-offline-docs/" + 5000 * "a",
        "/..%2fapp.py",
        "/%zz%ff",
    ],
)
def test_no_path_leads_out(port, path):
    with connected(port) as connection:
        connection.sendall(b"GET " + path.encode() + b" HTTP/1.0\r\n" + HOST + b"\r\n")
        assert said(connection).startswith(b"HTTP/1.1 404 ")


def test_names_of_files_stay_names(port, png, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    names = [
        "../../etc/passwd",
        "/etc/passwd",
        "a\r\nSet-Cookie: x=y",
        "\x1b[2Jx",
        "<script>alert(1)</script>",
        "=1+1.png",
    ]
    answer = httpx.post(f"http://127.0.0.1:{port}/predict", files=[("files", (name, png)) for name in names])
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    assert answer.headers["content-type"] == "application/json"  # no browser takes it for a page
    found = [row["file"] for row in answer.json()["predictions"]]
    assert found[0] == "../../etc/passwd"
    assert found[4:] == names[4:]
    assert not list(tmp_path.iterdir())
    assert "\x1b" not in "".join(capfd.readouterr())


def test_a_form_of_very_many_parts_is_refused_at_once(port):
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nb\r\n'
    began = time.monotonic()
    answer = httpx.post(
        f"http://127.0.0.1:{port}/predict",
        content=200_000 * part + b"--x--\r\n",
        headers={"Content-Type": "multipart/form-data; boundary=x"},
        timeout=60,
    )
    assert (answer.status_code, answer.json()["message"][:31]) == (400, "the multipart form is malformed")
    assert time.monotonic() - began < 20


FLOODS = {
    "header": b"GET / HTTP/1.1\r\nX: ",
    "headers": b"GET / HTTP/1.1\r\n",
    "address": b"GET /",
    "trailer": POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: ",
    "extension": POST + b"Transfer-Encoding: chunked\r\n\r\n2;",
}


@pytest.mark.parametrize("kind", FLOODS)
def test_endless_headers_are_cut_off(port, kind):
    flood = (b"X: 1\r\n" if kind == "headers" else b"aaaaaa") * 10_000
    sent = 0
    with connected(port) as connection, contextlib.suppress(ConnectionResetError, BrokenPipeError):
        connection.sendall(FLOODS[kind])
        while sent < 64 * 2**20:
            connection.sendall(flood)
            sent += len(flood)
    assert sent < 32 * 2**20  # what the system holds between two sockets is not read
    assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200


def test_a_long_but_ordinary_header_is_read(port):
    assert httpx.get(f"http://127.0.0.1:{port}/version", headers={"Cookie": 60_000 * "a"}).status_code == 200


def test_who_leaves_an_answer_lying_is_let_go(current, served, monkeypatch):
    monkeypatch.setattr(server, "ANSWER_SECONDS", 1.0)
    picture = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (256, 256), np.uint8)).save(picture, "PNG")
    request = httpx.Request(
        "POST", "http://127.0.0.1/predict?preview=1", files=[("files", ("a.png", picture.getvalue()))] * 60
    )
    lines = [f"{name}: {value}" for name, value in request.headers.items()]
    head = "\r\n".join(["POST /predict?preview=1 HTTP/1.1", *lines, "", ""]).encode()
    with served(create_app(current, names=[])) as port, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        connection.sendall(head + request.read())
        time.sleep(5)
        connection.settimeout(10)
        assert 0 < len(said(connection)) < 5_000_000  # 5.3 MB less what the system had taken already


def test_a_thousand_silent_connections_keep_nobody_out(current, served, png):
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if sys.platform != "win32" and most[0] < 2500:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, most[1]), most[1]))
    with served(create_app(current, names=[])) as port, contextlib.ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(connected(port)).sendall(b"POST /predict HTTP/1.1\r\n")
        assert httpx.post(f"http://127.0.0.1:{port}/predict", content=png, timeout=20).status_code == 200
