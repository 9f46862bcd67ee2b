"""Which evaluation is best, and how aliases move."""

from pathlib import Path
from unittest import mock

import mlflow
import pytest
from mlflow import MlflowClient
from stores import tracking_at

from sslbt.errors import UserError
from sslbt.tracking import registry
from sslbt.tracking.models import RELEASED, onnx_file

METRIC = "test/patient_balanced_accuracy"
NAME = "brain-tumor-classifier"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with tracking_at(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db") as client:
        yield client


@pytest.fixture
def experiment(client, request):
    return client.create_experiment(request.node.name)


def evaluation(client, experiment, score, start, status="FINISHED", stage="evaluate", **tags):
    tags = {"stage": stage, "data_digest": "d", "split_hash": "s", "split": "patient"} | tags
    run = client.create_run(experiment, start_time=start, tags=tags, run_name=f"run at {start}")
    if score is not None:
        client.log_metric(run.info.run_id, METRIC, score)
    client.set_terminated(run.info.run_id, status)
    return run.info.run_id


def test_the_best_of_the_newest_test_patients_wins_and_others_are_named(client, experiment):
    evaluation(client, experiment, 0.99, 1, split_hash="other patients")
    evaluation(client, experiment, 0.98, 2, data_digest="other data")
    best = evaluation(client, experiment, 0.80, 3)
    evaluation(client, experiment, 0.97, 4, status="FAILED")
    evaluation(client, experiment, 0.96, 5, stage="finetune")
    evaluation(client, experiment, None, 6)
    evaluation(client, experiment, 0.95, 7, split="none")
    evaluation(client, experiment, 0.70, 8)
    found = registry.find_best(experiment, METRIC)
    assert found.run.info.run_id == best
    assert [name.split(" (")[0] for name in found.left_out] == ["run at 2", "run at 1"]


def test_the_best_is_found_among_more_runs_than_fit_a_page(client, experiment, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    from finding import multiply

    multiply(client.tracking_uri, evaluation(client, experiment, 0.60, 2), 2_100)
    multiply(client.tracking_uri, evaluation(client, experiment, 0.99, 1, split_hash="other patients"), 30)
    best = evaluation(client, experiment, 2, 1)
    found = registry.find_best(experiment, METRIC)
    assert found.run.info.run_id == best
    assert len(found.left_out) == registry.NAMED
    assert found.left_out_count == 31


def test_nothing_to_choose_from_is_said(client, experiment):
    evaluation(client, experiment, 0.9, 1)
    with pytest.raises(UserError, match="metric=test/beauty: no finished evaluation"):
        registry.find_best(experiment, "test/beauty")


def test_promotion_keeps_the_way_back(client):
    client.create_registered_model(NAME)
    one, two, three = (client.create_model_version(NAME, f"file:///nowhere/{number}") for number in range(3))
    assert registry.champion(NAME) is None
    registry.promote(NAME, one)
    assert registry.champion(NAME).version == one.version
    assert registry.PREVIOUS not in client.get_registered_model(NAME).aliases
    registry.promote(NAME, two)
    registry.promote(NAME, two)
    assert client.get_model_version_by_alias(NAME, registry.PREVIOUS).version == one.version
    registry.promote(NAME, three)
    assert registry.champion(NAME).version == three.version
    assert client.get_model_version_by_alias(NAME, registry.PREVIOUS).version == two.version


@pytest.mark.parametrize(("status", "versions"), [("KILLED", 1), ("FAILED", 1), ("RUNNING", 2), ("FINISHED", 2)])
def test_a_version_that_a_killed_run_left_is_taken_up(client, tmp_path, status, versions):
    mlflow.set_experiment(experiment_id=client.create_experiment(status, tmp_path.as_uri()))
    name, tags = f"taken up {status}", {"evaluation": "e", "classifier": "c"}
    with mlflow.start_run() as killed:
        killing = mock.patch.object(MlflowClient, "set_registered_model_alias", side_effect=KeyboardInterrupt)
        with killing, pytest.raises(KeyboardInterrupt):
            registry.log_model(onnx_file(RELEASED), name, tags)
        (left,) = client.search_model_versions(f"name = '{name}'")
        assert tags.items() <= left.tags.items()  # it is never without
    client.set_terminated(killed.info.run_id, status)
    with mlflow.start_run():
        found = registry.log_model(onnx_file(RELEASED), name, tags)
        assert int(found.version) == versions
        assert int(client.get_registered_model(name).aliases[registry.CHALLENGER]) == versions
    with mlflow.start_run():  # of another evaluation it is another one
        assert int(registry.log_model(onnx_file(RELEASED), name, tags | {"evaluation": "f"}).version) == versions + 1


def test_of_versions_registered_at_once_the_newest_is_the_challenger(client, monkeypatch):
    """Another machine registers a version, and sets the alias, just before this one sets it."""
    name = "at once"
    client.create_registered_model(name)

    def add() -> str:
        version = client.create_model_version(name, "file:///nowhere")
        registry.tag(version, evaluation="e", classifier="c")
        return str(version.version)

    def challenger() -> str:
        return str(client.get_registered_model(name).aliases[registry.CHALLENGER])

    set_alias, others = MlflowClient.set_registered_model_alias, []

    def late(*words) -> None:
        if not others:
            others.append(add())
            registry.challenge(name, others[0])
            assert challenger() == others[0] == "2"
        set_alias(*words)

    first = add()
    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", late)
    registry.challenge(name, first)
    assert challenger() == "2"
    client.create_model_version(name, "file:///nowhere")  # not by `sslbt register`
    registry.challenge(name, first)
    assert challenger() == "2"
