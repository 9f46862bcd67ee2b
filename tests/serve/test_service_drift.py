"""Drift as a caller sees it: the report, the metric, and that another model begins anew."""

import numpy as np
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from serve.app import create_app
from serve.current import Current, Model
from serve.reference import KEY, Reference
from serve.session import Classifier


def pictures(count: int, seed: int, dark: float = 1.0) -> list[np.ndarray]:
    """Noise of many brightnesses; darkened by an exponent, for a factor would change nothing."""
    random = np.random.default_rng(seed)
    return [random.beta(1 + random.integers(4), 2, (24, 24)) ** dark for _ in range(count)]


@pytest.fixture
def referenced(tmp_path, write_tiny, classifier) -> Model:
    learnt, unseen = (classifier.scores(pictures(200, seed)) for seed in (1, 2))
    families = np.repeat(np.arange(40), 5)
    reference = Reference.of(classifier.classes, unseen, families, learnt, families)
    path = write_tiny(tmp_path / "referenced.onnx", classifier.metadata | {KEY: reference.to_metadata()})
    return Model(Classifier.load(path), "tiny", "1")


def serve(client: TestClient, given: list[np.ndarray]) -> None:
    for first in range(0, len(given), 50):
        answer = client.post("/invocations", json={"inputs": [one.tolist() for one in given[first : first + 50]]})
        assert answer.status_code == 200


def gauges(client: TestClient) -> dict[str, float]:
    return {sample.labels["quantity"]: sample.value for sample in samples(client, "sslbt_drift")}


def samples(client: TestClient, name: str) -> list:
    (family,) = (f for f in text_string_to_metric_families(client.get("/metrics").text) if f.name == name)
    return family.samples


def test_what_is_served_is_compared_with_the_reference(referenced):
    current = Current(referenced)
    client = TestClient(create_app(current))
    assert "Too few" in client.get("/drift").json()["sentence"]
    assert client.post("/predict", content=b"no picture").status_code == 200  # nothing to compare
    serve(client, pictures(300, seed=3))
    usual = client.get("/drift").json()
    assert usual["drift_alarm"] == 0, usual
    assert usual["drift_slices"] == 300
    assert max(gauges(client).values()) < 1

    serve(client, pictures(300, seed=4, dark=3))
    changed = client.get("/drift").json()
    assert changed["drift_alarm"] == 1
    assert changed["sentence"].startswith("Drift in the last 300 slices")
    assert changed["drift"] == pytest.approx(max(gauges(client).values()))

    current.model = Model(referenced.classifier, "tiny", "2")
    assert client.get("/drift").json()["model_version"] == "2"
    assert "Too few" in client.get("/drift").json()["sentence"]


def test_a_model_without_a_reference_leaves_no_figures_of_the_one_before(referenced, classifier):
    current = Current(referenced)
    client = TestClient(create_app(current))
    serve(client, pictures(150, seed=3))
    assert [sample.value for sample in samples(client, "sslbt_drift_slices")] == [150]
    current.model = Model(classifier, "tiny", "2")
    assert gauges(client) == {}
    assert [sample.value for sample in samples(client, "sslbt_drift_slices")] == [0]


def test_a_model_without_a_reference_says_so(current, png):
    client = TestClient(create_app(current))
    client.post("/predict", content=png)
    assert "no reference" in client.get("/drift").json()["sentence"]
    assert gauges(client) == {}
