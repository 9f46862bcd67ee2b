"""The gate, who asked, and the way back, on a real store."""

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from sklearn.metrics import balanced_accuracy_score
from stores import tracking_at

from sslbt.cli import main
from sslbt.errors import UserError
from sslbt.evaluation.metrics import Predictions
from sslbt.steps.promote import weigh
from sslbt.steps.told import PREDICTIONS
from sslbt.tracking import registry

NAME = "brain-tumor-classifier"
CLASSES = ("meningioma", "glioma", "pituitary")
METRIC = "test/balanced_accuracy"


def table(accuracy: float, first: int = 0, seed: int = 0, classes: tuple[str, ...] = CLASSES) -> pd.DataFrame:
    """Predictions for 4 slices of each of 60 families, right with this probability."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(60) % 3, 4)
    predicted = np.where(generator.random(240) < accuracy, labels, (labels + 1) % 3)
    names = np.array([f"{first + i}.mat" for i in range(240)])
    families = np.repeat([f"P{i:03d}" for i in range(60)], 4)
    return Predictions(labels, np.eye(3)[predicted], families, names).table(classes)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database whose tables are made: MLflow takes seconds for that."""
    place = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{place}").search_experiments()
    return place


@pytest.fixture
def client(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    """A store of one's own, the current one."""
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("SSLBT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    monkeypatch.setattr("sslbt.tracking.run.SAMPLED_AFTER", 0.0)
    monkeypatch.chdir(tmp_path)
    with tracking_at(f"sqlite:///{tmp_path}/mlflow.db") as client:
        mlflow.set_experiment("promotion")
        yield client


Adds = Callable[..., ModelVersion]


@pytest.fixture
def add(client: MlflowClient) -> Adds:
    """Registers a version whose classifier gave these answers, as `register` leaves it."""
    client.create_registered_model(NAME)

    def add(answers: pd.DataFrame, split_hash: str = "s") -> ModelVersion:
        version = client.create_model_version(NAME, "file:///nowhere")
        classifier = f"c{version.version}"
        run = evaluation(answers, classifier, split_hash)
        registry.tag(version, evaluation=run, classifier=classifier)
        client.set_registered_model_alias(NAME, registry.CHALLENGER, version.version)
        return version

    return add


def evaluation(answers: pd.DataFrame, classifier: str, split_hash: str = "s") -> str:
    tags = {"stage": "evaluate", "split": "patient", "data": "sample", "data_digest": "d", "split_hash": split_hash}
    with mlflow.start_run(tags=tags | {"classifier": classifier}) as run:
        mlflow.log_text(answers.to_csv(index=False), PREDICTIONS)
    return run.info.run_id


def aliases(client: MlflowClient) -> dict[str, str]:
    return {name: str(number) for name, number in client.get_registered_model(NAME).aliases.items()}


def promote(version: str = "", metric: str = METRIC) -> int:
    return main(["promote", "--version", version, "--metric", metric])


def last_run(client: MlflowClient) -> mlflow.entities.Run:
    (experiment,) = client.search_experiments(filter_string="name = 'promotion'")
    return client.search_runs([experiment.experiment_id])[0]


def test_the_first_meets_no_objection(client: MlflowClient, add: Adds) -> None:
    add(table(0.5))
    assert promote() == 0
    assert aliases(client) == {"champion": "1", "challenger": "1"}


@pytest.mark.parametrize(
    ("theirs", "ours", "promoted", "reason"),
    [
        (table(0.9), table(0.9), True, "not clearly below"),
        (table(0.6), table(0.95), True, "not clearly below"),
        (table(0.9), table(0.88, seed=1), True, "not clearly below"),
        (table(0.95), table(0.5), False, "clearly below the champion in balanced_accuracy"),
        (table(0.6, first=1000), table(0.95), False, "judged on other slices"),
        (table(0.6, classes=("a", "b", "c")), table(0.95), False, "or knows other classes"),
    ],
)
def test_the_gate(
    client: MlflowClient,
    add: Adds,
    capsys: pytest.CaptureFixture[str],
    theirs: pd.DataFrame,
    ours: pd.DataFrame,
    promoted: bool,
    reason: str,
) -> None:
    add(theirs)
    promote()
    add(ours)
    capsys.readouterr()
    assert promote() == 0
    assert aliases(client)["champion"] == ("2" if promoted else "1")
    assert reason in capsys.readouterr().err
    assert (aliases(client).get("previous") == "1") == promoted


def test_a_decision_is_kept_with_its_figures_and_who_asked(
    client: MlflowClient, add: Adds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    champion, challenger = table(0.95), table(0.5)
    add(champion)
    promote()
    add(challenger)
    promote()
    run = last_run(client)
    found = json.loads(Path(client.download_artifacts(run.info.run_id, "decision.json")).read_text())
    names = [f"p_{name}" for name in CLASSES]
    by_hand = [
        balanced_accuracy_score(own["class"], own[names].idxmax(axis=1).str[2:]) for own in (challenger, champion)
    ]
    assert (found["value"], found["champion_value"]) == pytest.approx(by_hand)
    assert found["difference"] == pytest.approx(by_hand[0] - by_hand[1])
    assert found["difference_ci_low"] < found["difference"] < found["difference_ci_high"] < 0
    assert (found["version"], found["champion"], found["promoted"], found["patients"]) == ("2", "1", False, 60)
    assert run.data.tags["asked_by"] == found["asked_by"] == "ada"
    assert run.data.metrics["decision/difference"] == pytest.approx(found["difference"])
    assert run.data.tags["mlflow.runName"] == f"promote {NAME} version 2"
    tags = client.get_model_version(NAME, "2").tags
    assert (tags["decision"], tags["decided_by"], tags["decided_in"]) == (found["reason"], "ada", run.info.run_id)


def test_a_champion_of_other_patients_can_be_judged_again(
    client: MlflowClient, add: Adds, capsys: pytest.CaptureFixture[str]
) -> None:
    add(table(0.9), split_hash="last year")
    promote()
    add(table(0.9))
    promote()
    assert (
        f"run `sslbt evaluate --model models:/{NAME}@champion --data sample --split patient`" in capsys.readouterr().err
    )
    assert aliases(client)["champion"] == "1"
    evaluation(table(0.8), "c1")
    promote()
    assert aliases(client) == {"champion": "2", "challenger": "2", "previous": "1"}


def test_a_rollback_and_another_one(client: MlflowClient, add: Adds, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        add(table(0.9))
        promote()
    assert main(["rollback"]) == 0
    assert aliases(client) == {"champion": "1", "challenger": "2", "previous": "2"}
    assert last_run(client).data.tags["reason"] == "rolled back from version 2"
    assert main(["rollback"]) == 0
    assert aliases(client)["champion"] == "2"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["promote"], "no challenger in sqlite"),
        (["promote", "--version", "7"], "no version 7 in sqlite"),
        (["promote", "--version", "newest"], "version=newest: give its number"),
        (["rollback"], "no champion in sqlite"),
    ],
)
def test_mistakes(client: MlflowClient, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_a_metric_that_no_evaluation_has(client: MlflowClient, add: Adds, capsys: pytest.CaptureFixture[str]) -> None:
    add(table(0.9))
    promote()
    add(table(0.9))
    assert promote(metric="test/beauty") == 2
    assert "metric=test/beauty: can't be compared; there are test/accuracy" in capsys.readouterr().err
    assert aliases(client)["champion"] == "1"


def test_a_version_that_sslbt_did_not_register(client: MlflowClient, add: Adds) -> None:
    client.create_model_version(NAME, "file:///nowhere")
    with pytest.raises(UserError, match="version 1: no evaluation of it is known"):
        weigh(NAME, client.get_model_version(NAME, "1"), None, METRIC)


def many(uri: str, home: str, numbers: list[str]) -> None:
    """In a process of its own: each version into service, one after another."""
    os.environ["SSLBT_HOME"] = home
    mlflow.set_tracking_uri(uri)
    for number in numbers:
        with registry.alone(NAME):
            registry.promote(NAME, registry.version(NAME, number))


def test_promotions_at_once_end_consistent(client: MlflowClient, add: Adds) -> None:
    for _ in range(8):
        add(table(0.9))
    spawn = multiprocessing.get_context("spawn")
    arguments = mlflow.get_tracking_uri(), os.environ["SSLBT_HOME"]
    processes = [spawn.Process(target=many, args=(*arguments, own)) for own in (list("1357"), list("2468"))]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    found = aliases(client)
    assert found["champion"] in ("7", "8")
    assert found["previous"] != found["champion"]
    if found["champion"] == "7":  # the other process was done before
        assert found["previous"] in ("5", "8")
