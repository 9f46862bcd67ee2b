"""Bodies that a fuzzer made of good ones: each once cost the service an answer, its memory, or seconds."""

import json
import resource
import struct
import time
import tracemalloc

import numpy as np
import pytest
from fastapi import HTTPException
from fastapi.testclient import TestClient

from serve.app import create_app
from serve.bodies import MOST_VALUES
from serve.pool import Pool
from serve.tensors import HEADER

INFER = "/v2/models/tiny/infer"


@pytest.fixture
def client(current):
    return TestClient(create_app(current))  # which raises what the service does not answer


def request(outputs: object = None, **changed: object) -> dict:
    given = {"name": "image", "datatype": "UINT8", "shape": [17, 17], "data": [0, 1] + [2] * 287, **changed}
    return {"inputs": [given], "outputs": outputs}


@pytest.mark.parametrize(
    "asked",
    [
        request(shape=[float("inf"), 17]),
        request(datatype=["UINT8"]),
        request(datatype={"a": 1}),
        request(datatype="\ud800"),
        request([{"name": 3}]),
        request([{"name": 3}, {"name": "a"}]),
        request([{"name": "\ud800"}]),
        request(parameters={"binary_data_size": float("inf")}),
    ],
)
def test_a_value_of_another_kind_gives_400(client, asked):
    answer = client.post(INFER, content=json.dumps(asked))
    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.parametrize("shape", [[0, 5, 0], [0, 0, 0], [0, 17, 17]])
@pytest.mark.parametrize("names", [[], ["label", "probabilities"]])
def test_no_pictures_give_no_rows(client, shape, names):
    given = request([{"name": name} for name in names], shape=shape, data=[])
    answer = client.post(INFER, content=json.dumps(given))
    assert answer.status_code == 200
    outputs = answer.json()["outputs"]
    assert [output["name"] for output in outputs][: len(names)] == names
    assert all(output["shape"][0] == 0 and output["data"] == [] for output in outputs)


def test_numbers_in_lists_do_not_wait_as_such(client, monkeypatch):
    """A million of them take 32 MB as Python holds them, 8 as numpy does."""
    waiting = []

    async def score(self, classifier, pictures, *rest):
        waiting.append((tracemalloc.get_traced_memory()[0], pictures[0]()))
        raise HTTPException(503)

    monkeypatch.setattr(Pool, "score", score)
    million = [[0.5 + place for place in range(1000)]] * 1000
    text = json.dumps(million)
    flat = json.dumps({"name": "image", "datatype": "FP64", "shape": [1000, 1000], "data": 0})
    bodies = {
        "/invocations": f'{{"instances": [{text}]}}',
        INFER: f'{{"inputs": [{flat.replace(": 0}", ": " + text + "}")}]}}',
    }
    tracemalloc.start()
    try:
        for address, body in bodies.items():
            before = tracemalloc.get_traced_memory()[0]
            assert client.post(address, content=body).status_code == 503
            now, picture = waiting.pop()
            np.testing.assert_array_equal(picture, million)
            assert now - before < len(body) * 2 + 12e6, address
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", [[5, 0, 0], [2, 0, 17], [0, 0]])
def test_pictures_without_pixels_have_a_reason(client, shape):
    outputs = client.post(INFER, content=json.dumps(request(shape=shape, data=[]))).json()["outputs"]
    reasons = next(output["data"] for output in outputs if output["name"] == "reason")
    assert len(reasons) == (shape[0] if len(shape) == 3 else 1)
    assert all("16 x 16 to 8000 x 8000" in reason for reason in reasons)


def test_a_length_of_thousands_of_digits_gives_400(client):
    assert client.post(INFER, content=b"{}", headers={HEADER: "9" * 5000}).status_code == 400


def binary(kind: str, shape: list[int], data: bytes) -> dict:
    head = json.dumps(request(datatype=kind, shape=shape, parameters={"binary_data_size": len(data)})).encode()
    return {"url": INFER, "content": head + data, "headers": {HEADER: str(len(head))}}


MANY = 8_000_000
TOO_MUCH = {
    "pixels one by one": (413, lambda: binary("UINT8", [MANY, 1, 1], bytes(MANY))),
    "empty files": (413, lambda: binary("BYTES", [MANY], struct.pack("<I", 0) * MANY)),
    "more files than the shape says": (400, lambda: binary("BYTES", [1], struct.pack("<I", 0) * MANY)),
    "rows": (413, lambda: {"url": "/invocations", "content": b'{"instances": [' + b"1," * (MOST_VALUES - 2) + b"1]}"}),
    "lists": (400, lambda: {"url": "/invocations", "content": b'{"instances": [' + b"[]," * MANY + b"1]}"}),
    "lists in /v2": (400, lambda: {"url": INFER, "content": b'{"inputs": [' + b"[]," * MANY + b"1]}"}),
}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_more_than_can_be_is_refused_before_it_costs_anything(client, what):
    code, made = TOO_MUCH[what]
    body = made()
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = client.post(**body)
    assert answer.status_code == code, answer.text
    assert time.process_time() - began < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 2**10  # KiB, of 32 MB at most sent


def test_as_many_values_as_may_be_are_read(client):
    side = 2048
    row = "[" + "1," * (side - 2) + "2,3]"
    body = '{"instances": [[' + ",".join([row] * side) + "]]}"
    assert body.count(",") == MOST_VALUES - 1
    (found,) = client.post("/invocations", content=body).json()["predictions"]
    assert found["label"]
