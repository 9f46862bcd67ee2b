"""Our service in a real process, asked by a real client."""

import base64
import signal
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest


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


def test_it_ends_when_asked(start_service):
    process = start_service().process
    process.terminate()
    assert process.wait(20) in (0, -signal.SIGTERM)
