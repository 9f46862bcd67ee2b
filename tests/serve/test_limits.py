"""Who may ask, how much, how slowly; and that the others notice nothing of it."""

import contextlib
import os
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
from fastapi.testclient import TestClient

from serve import limits, server
from serve.app import create_app
from serve.current import Current, Model
from serve.pool import WAITING


class Slow:
    """The classifier, but a picture waits until the gate is open."""

    def __init__(self, classifier):
        self.classifier, self.gate, self.explains = classifier, threading.Event(), False

    def scores(self, pictures, saliency=False):
        assert self.gate.wait(20)
        return self.classifier.scores(pictures)

    def __getattr__(self, name):
        return getattr(self.classifier, name)


def test_without_the_key_nothing_is_told_but_that_it_lives(current, png):
    client = TestClient(create_app(current, key="s3cret"))
    right = {"Authorization": "Bearer s3cret"}
    for path in ("/", "/health", "/ready", "/v2/health/live", "/v2/health/ready"):
        assert client.get(path).status_code == 200
    for wrong in ({}, {"Authorization": "Bearer s3cre"}, {"Authorization": "Basic s3cret"}, {"Authorization": "é"}):
        answer = client.post("/predict", content=png, headers=[(k, v.encode("latin-1")) for k, v in wrong.items()])
        assert (answer.status_code, answer.json()["error_code"]) == (401, "UNAUTHORIZED")
        assert answer.headers["www-authenticate"] == "Bearer"
    for path in ("/version", "/metrics", "/v2", "/v2/models/tiny", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers=right).status_code == 200
    assert client.post("/predict", content=png, headers=right).status_code == 200
    assert "error" in client.get("/v2").json()


def test_past_capacity_a_quick_503_while_accepted_requests_are_answered(classifier, png, served):
    slow = Slow(classifier)
    app = create_app(Current(Model(slow, "tiny", "1")))
    fit = WAITING * len(os.sched_getaffinity(0))
    with served(app) as port, ThreadPoolExecutor(fit + 100) as threads:
        address = f"http://127.0.0.1:{port}/predict"

        def ask(_):
            began = time.perf_counter()
            answer = httpx.post(address, content=png, timeout=60)
            return answer, time.perf_counter() - began

        asked = [threads.submit(ask, number) for number in range(fit + 100)]
        refused = []
        until = time.monotonic() + 20
        while not refused and time.monotonic() < until:
            refused = [one for one in asked if one.done()]
            time.sleep(0.05)
        (answer, seconds), again = refused[0].result(), httpx.post(address, content=png)
        assert seconds < 10
        for one in (answer, again):
            assert one.status_code == 503
            assert int(one.headers["retry-after"]) >= 1
            assert one.json()["error_code"] == "SERVICE_UNAVAILABLE"
        # It goes on telling how it is.
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
        assert "sslbt_waiting_pictures" in httpx.get(f"http://127.0.0.1:{port}/metrics").text
        slow.gate.set()
        codes = [one.result()[0].status_code for one in asked]
        assert set(codes) == {200, 503}
        assert codes.count(200) >= fit


def test_more_pictures_than_fit_are_refused_with_a_way_out(current, png):
    client = TestClient(create_app(current))
    answer = client.post("/predict", files=[("files", (f"{n}.png", png)) for n in range(900)])
    assert answer.status_code == 413
    assert "sslbt score" in answer.json()["message"]


def test_a_body_that_dribbles_in_is_ended_and_starves_nobody(current, png, monkeypatch, served):
    monkeypatch.setattr(limits, "BODY_SECONDS", 1.0)
    monkeypatch.setattr(server, "HEADER_SECONDS", 1.0)
    with served(create_app(current)) as port:
        idle, headers, body = (socket.create_connection(("127.0.0.1", port)) for _ in range(3))
        headers.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\n")
        body.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        began = time.monotonic()
        for _ in range(20):
            assert httpx.post(f"http://127.0.0.1:{port}/predict", content=png).status_code == 200
        for connection in (idle, headers, body):
            connection.settimeout(10)
        assert b"408" in body.recv(4096).split(b"\r\n")[0]
        with contextlib.suppress(ConnectionResetError):
            assert headers.recv(10) == b""
        with contextlib.suppress(ConnectionResetError):
            assert idle.recv(10) == b""
        assert time.monotonic() - began < 8


def test_bodies_under_way_are_bounded_together(current, png, served):
    app = create_app(current)
    bounded = limits.Limits(app, check=lambda: None, max_held=3 * 2**20)
    with served(bounded) as port:
        first = socket.create_connection(("127.0.0.1", port))
        first.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n" + b"x" * 2_500_000)
        until = time.monotonic() + 10
        while bounded.held < 2_400_000 and time.monotonic() < until:
            time.sleep(0.01)
        refused = httpx.post(f"http://127.0.0.1:{port}/predict", content=b"x" * 2**20)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        first.close()
        while bounded.held and time.monotonic() < until:
            time.sleep(0.01)
        assert bounded.held == 0  # what a caller took is given back though it left
        assert httpx.post(f"http://127.0.0.1:{port}/predict", content=png).status_code == 200


def test_a_huge_picture_costs_its_row_only(current):
    client = TestClient(create_app(current))
    head = b"P5 100000 100000 255\n"  # no format of ours; and a PNG that says it is 100,000 pixels wide
    chunk = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    header = b"IHDR" + chunk
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    files = [("files", ("a.pgm", head)), ("files", ("b.png", bomb))]
    rows = client.post("/predict", files=files).json()["predictions"]
    assert [row["status"] for row in rows] == ["unreadable"] * 2
    assert np.all([row["label"] is None for row in rows])
