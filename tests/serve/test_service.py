"""Our service in a real process, asked by a real client."""

import base64
import itertools
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openapi_spec_validator
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from serve.app import create_app
from serve.current import Current, Model
from serve.session import Classifier
from serve.shown import status
from sslbt.data.formats import decode


@pytest.fixture(scope="module")
def address(start_service):
    return start_service().address


def test_it_answers_for_a_png_and_a_mat(address, classifier, mat, png, pixels):
    (expected,) = classifier.rows([pixels])
    files = [("files", ("1.mat", mat)), ("files", ("1.png", png))]
    first, second = httpx.post(f"{address}/predict", files=files).json()["predictions"]
    assert first == {"file": "1.mat", **expected, "status": "answered"}
    assert second["label"] == expected["label"]
    body = {"dataframe_split": {"columns": ["image"], "data": [[base64.b64encode(mat).decode()]]}}
    assert httpx.post(f"{address}/invocations", json=body).json() == {"predictions": [expected]}


def test_many_at_once_get_the_same_answer(address, mat):
    def ask(_):
        return httpx.post(f"{address}/predict", content=mat).json()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(40)))
    assert all(answer == answers[0] for answer in answers)


def test_too_large_a_request_is_answered_before_it_is_read(address):
    response = httpx.post(f"{address}/predict", content=b"x" * 2**22)
    assert response.status_code == 413
    assert response.json()["message"].endswith("at a time")


def _lets_in(address):
    try:
        return httpx.get(f"{address}/health").status_code == 200
    except httpx.TransportError:
        return False


def test_asked_to_end_it_answers_what_it_has_begun(start_service, png):
    service = start_service()
    port = int(service.address.rsplit(":", 1)[1])
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(png)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port)) as begun:
        begun.sendall(head + png[:1000])
        time.sleep(0.3)
        service.process.terminate()
        until = time.monotonic() + 20
        while _lets_in(service.address):
            assert time.monotonic() < until
        begun.sendall(png[1000:])
        begun.settimeout(20)
        answer = b"".join(iter(lambda: begun.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"label"' in answer
    assert service.process.wait(20) in (0, -signal.SIGTERM)


def test_another_model_takes_over_without_a_lost_or_wrong_answer(
    tmp_path, write_tiny, classifier, served, png, monkeypatch
):
    """Clients ask without a pause while the model is exchanged again and again."""
    metadata = classifier.metadata
    files = [
        write_tiny(tmp_path / f"{n}.onnx", metadata | {"run_id": str(n) * 32, "plausible_above": f"0.{n}"})
        for n in (4, 9)
    ]
    expected = {}
    for path in files:
        own = Classifier.load(path)
        (row,) = own.rows([decode(png, "png")])
        expected[own.metadata["run_id"]] = {"file": "body", **row, "status": status(row)}
    assert len({row["abstain"] for row in expected.values()}) == 2  # the two models can be told apart
    turns = itertools.cycle([("9", files[1]), ("4", files[0])])
    current = Current(Model(Classifier.load(files[0]), "tiny", "4"))
    monkeypatch.setattr("serve.current.SETTLING", 0.05)
    answers, stop = [], threading.Event()

    def ask(port):
        with httpx.Client() as client:
            while not stop.is_set():
                answers.append(client.post(f"http://127.0.0.1:{port}/predict", content=png))

    with served(create_app(current)) as port, ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask, port) for _ in range(4)]
        current.watch(lambda: next(turns), every=0.05)
        until = time.monotonic() + 20
        while time.monotonic() < until and len({a.json()["model"]["run_id"] for a in list(answers)[-200:]}) < 2:
            time.sleep(0.1)
        stop.set()
        for one in asking:
            one.result()
    told = [answer.json() for answer in answers]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer["model"]["run_id"] for answer in told} == set(expected)
    for answer in told:
        assert answer["predictions"] == [expected[answer["model"]["run_id"]]]


def test_a_broken_or_missing_newer_model_changes_nothing(tmp_path, classifier, caplog):
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    current = Current(Model(classifier, "tiny", "1"))
    looks = iter([("2", tmp_path / "broken.onnx"), ("2", tmp_path / "broken.onnx")])
    looked = threading.Event()

    def latest():
        try:
            return next(looks)
        except StopIteration:
            looked.set()
            raise ConnectionError("the registry is away") from None

    current.watch(latest, every=0.01)
    assert looked.wait(20)
    current.close()
    assert (current.model.version, current.model.classifier) == ("1", classifier)
    said = [record.message for record in caplog.records if "stays in service" in record.message]
    assert len(said) == 2  # once each, not at every look
    assert "no readable ONNX file" in said[0]
    assert "the registry is away" in said[1]


def test_prometheus_can_read_what_happened(current, png):
    client = TestClient(create_app(current))
    client.post("/predict", files=[("files", ("a.png", png)), ("files", ("b.png", png)), ("files", ("c", b"no"))])
    client.post("/invocations", content=b"{")
    client.get("/nowhere")
    families = {family.name: family for family in text_string_to_metric_families(client.get("/metrics").text)}

    def value(family, sample_name, **labels):
        (sample,) = (
            s for s in families[family].samples if s.name == sample_name and labels.items() <= s.labels.items()
        )
        return sample.value

    (row,) = current.model.classifier.rows([decode(png, "png")])
    assert value("sslbt_requests", "sslbt_requests_total", route="/predict", status="200") == 1
    assert value("sslbt_requests", "sslbt_requests_total", route="/invocations", status="400") == 1
    assert value("sslbt_requests", "sslbt_requests_total", route="other", status="404") == 1
    assert value("sslbt_request_seconds", "sslbt_request_seconds_count", route="/predict") == 1
    assert value("sslbt_pictures", "sslbt_pictures_total", label=row["label"]) == 2
    assert value("sslbt_unreadable", "sslbt_unreadable_total") == 1
    assert value("sslbt_batch_pictures", "sslbt_batch_pictures_sum") == 3
    assert value("sslbt_confidence", "sslbt_confidence_count") == 2
    assert value("sslbt_confidence", "sslbt_confidence_sum") == pytest.approx(2 * row["confidence"], abs=1e-6)
    assert value("sslbt_waiting_pictures", "sslbt_waiting_pictures") == 0
    assert value("sslbt_model_info", "sslbt_model_info", version="1", name="tiny") == 1


def test_its_description_is_valid_and_its_page_loads_nothing_from_elsewhere(current):
    client = TestClient(create_app(current))
    description = client.get("/openapi.json").json()
    openapi_spec_validator.validate(description)
    assert {"/predict", "/invocations", "/v2/models/{name}/infer", "/metrics"} <= description["paths"].keys()
    page = client.get("/docs").text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(loaded) >= 2
    for address in loaded:
        assert address.startswith("/")
        assert client.get(address).status_code == 200
