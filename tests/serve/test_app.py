import base64
import io
import json
import re
import socket

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image

from serve.app import create_app
from serve.server import run
from sslbt.errors import UserError


@pytest.fixture
def client(current):
    return TestClient(create_app(current, max_bytes=2**20), raise_server_exceptions=False)


def test_files_of_a_form_give_one_row_each(client, classifier, mat, png, pixels):
    name = "<img src=x>.png"
    files = [("files", ("a.mat", mat)), ("whatever", (name, png)), ("files", ("c.png", b"broken"))]
    response = client.post("/predict", files=files)
    assert response.status_code == 200
    answer = response.json()
    assert answer["model"]["run_id"] == classifier.metadata["run_id"]
    assert answer["model"]["classes"] == list(classifier.classes)
    first, second, third = answer["predictions"]
    assert [row["file"] for row in (first, second, third)] == ["a.mat", name, "c.png"]
    (expected,) = classifier.rows([pixels])
    assert first == {"file": "a.mat", **expected, "status": "answered"}
    assert second["label"] in classifier.classes
    assert third["label"] is None
    assert third["p_glioma"] is None
    assert third["abstain"] is True
    assert third["reason"].startswith("c.png: ")


def test_a_bare_body_is_one_file(client, classifier, mat, pixels):
    for headers in ({}, {"Content-Type": "application/x-www-form-urlencoded"}):
        (row,) = client.post("/predict", content=mat, headers=headers).json()["predictions"]
        (expected,) = classifier.rows([pixels])
        assert row == {"file": "body", **expected, "status": "answered"}


def test_the_kind_of_a_body_may_be_in_capitals(client, png):
    form = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a.png"\r\n\r\n' + png + b"\r\n--x--\r\n"
    headers = {"Content-Type": "Multipart/Form-Data; boundary=x"}
    (row,) = client.post("/predict", content=form, headers=headers).json()["predictions"]
    assert (row["file"], row["status"]) == ("a.png", "answered")


def test_previews_come_only_when_asked(client, mat, pixels):
    files = [("files", ("a.mat", mat)), ("files", ("b.mat", b"broken"))]
    assert "preview" not in client.post("/predict", files=files).json()["predictions"][0]
    first, second = client.post("/predict?preview=1", files=files).json()["predictions"]
    assert second["preview"] is None
    head, data = first["preview"].split(",")
    assert head == "data:image/png;base64"
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert shown.shape == pixels.shape
    assert np.corrcoef(shown.ravel(), pixels.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"", "image/png"),
        (b"--x\r\nno part", "multipart/form-data; boundary=x"),
        (b"--x--\r\n", "multipart/form-data; boundary=x"),
        (b"anything", "multipart/form-data"),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nno file\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
        ),
    ],
)
def test_a_form_that_is_none_gives_400(client, content, content_type):
    response = client.post("/predict", content=content, headers={"Content-Type": content_type})
    assert response.status_code == 400
    assert response.json()["error_code"] == "BAD_REQUEST"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"instances": 3}'])
def test_json_that_is_none_gives_400(client, content):
    response = client.post("/invocations", content=content)
    assert response.status_code == 400
    assert response.json()["message"]
    assert "Traceback" not in response.text


def test_invocations_take_base64_and_raw_pixels(client, classifier, mat, pixels):
    text = base64.b64encode(mat).decode()
    body = {"instances": [{"image": text}, {"image": pixels.tolist()}, {"image": "?"}, {"image": None}]}
    first, second, *bad = client.post("/invocations", json=body).json()["predictions"]
    (expected,) = classifier.rows([pixels])
    assert first == second == expected
    assert [row["reason"][:6] for row in bad] == ["row 2:", "row 3:"]
    not_finite = '{"inputs": {"image": [[[NaN, Infinity], [1, 2]]]}}'
    (row,) = client.post("/invocations", content=not_finite).json()["predictions"]
    assert row["label"] is None


@pytest.mark.parametrize("path", ["/predict", "/invocations"])
def test_too_large_a_body_gives_413(client, path):
    whole = client.post(path, content=b"x" * (2**20 + 1))
    streamed = client.post(path, content=(b"x" * 2**18 for _ in range(5)))
    form = client.post(path, files={"files": ("a.png", b"x" * (2**20))})
    for response in (whole, streamed, form):
        assert response.status_code == 413
        assert "larger than 1 MiB" in response.json()["message"]


def test_the_largest_body_allowed_is_read(client):
    assert client.post("/predict", content=b"x" * 2**20).status_code == 200


def test_our_own_faults_show_no_trace(current, png, monkeypatch):
    monkeypatch.setattr(type(current.model.classifier), "told", lambda *_: 1 / 0)
    response = TestClient(create_app(current), raise_server_exceptions=False).post("/predict", content=png)
    assert response.status_code == 500
    assert set(response.json()) == {"error_code", "message"}
    assert "ZeroDivision" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"  # as every answer says


@pytest.mark.parametrize("path", ["/health", "/ready", "/ping"])
def test_health(client, path):
    assert client.get(path).json() == {"status": "ok"}


def test_version_and_unknown_paths(client, classifier):
    assert client.get("/version").json()["version"] == classifier.metadata["version"]
    assert client.get("/nowhere").json()["error_code"] == "NOT_FOUND"
    assert client.get("/predict").json()["error_code"] == "METHOD_NOT_ALLOWED"


def test_the_page_allows_and_asks_nothing_from_elsewhere(client):
    response = client.get("/")
    assert response.headers["content-type"].startswith("text/html")
    assert "not for diagnosis" in response.text
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert len(re.findall("'sha256-[^']+='", policy)) == 2
    assert "unsafe" not in policy
    assert not re.search(r"https?://|innerHTML|\sstyle=|\son\w+=", response.text)


def test_a_taken_port_is_named(current, start_service):
    port = int(start_service().address.rsplit(":", 1)[1])
    with pytest.raises(UserError, match=f"{port}: can't listen"):
        run(create_app(current), "127.0.0.1", port)


@pytest.mark.parametrize("host", ["é" * 80, "no.such.name.invalid"])
def test_a_name_that_can_not_be_listened_at_is_named(current, host):
    with pytest.raises(UserError, match=f"{host}:0: can't listen"):
        run(create_app(current), host, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_it_prints_an_address_that_can_be_asked(current, host, monkeypatch, capsys):
    def ask(server, sockets):
        with socket.create_connection(sockets[0].getsockname()[:2]):
            said = httpx.URL(capsys.readouterr().out.removeprefix("Serving on ").strip())
            assert (said.host, said.port) == sockets[0].getsockname()[:2]

    monkeypatch.setattr(uvicorn.Server, "run", ask)
    run(create_app(current), host, 0)


def test_json_holds_no_nan(client, pixels):
    answer = client.post("/invocations", json={"inputs": [(pixels * 1e300).tolist()]})
    json.loads(answer.text, parse_constant=lambda word: pytest.fail(word))
