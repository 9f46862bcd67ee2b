"""Which run is best, and which version of the classifier is in service."""

import getpass
import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from serve.package import log_arguments
from sslbt import waiting
from sslbt.data.source import cache_folder
from sslbt.errors import UserError
from sslbt.terminal import say
from sslbt.tracking.served import DIGEST
from sslbt.tracking.store import absent, get_run

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
FINISHED = "attributes.status = 'FINISHED' and tags.stage = 'evaluate' and tags.split != 'none'"
NEWEST_FIRST = "attributes.start_time DESC"
FEW = 50  # better ones are looked at at once
NAMED = 20  # evaluations left out are called by name
MOST = 1_000  # are counted
ENDED_EARLY = ("KILLED", "FAILED")


@dataclass(frozen=True)
class Best:
    """The best evaluation, and those that could not be compared with it: the newest by name, and how many in all."""

    run: MlflowRun
    left_out: list[str]
    left_out_count: int


def find_best(experiment_id: str, metric: str) -> Best:
    """The finished evaluation with the highest `metric` among those on the newest evaluation's data and test patients.

    Raises:
        UserError: the experiment has no finished evaluation with that metric.
    """

    def search(*conditions: str, above: float = -1e9, most: int = 1) -> Sequence[MlflowRun]:
        asked = " and ".join((FINISHED, f"metrics.`{metric}` > {above!r}", *conditions))
        return MlflowClient().search_runs([experiment_id], asked, max_results=most, order_by=[NEWEST_FIRST])

    newest = search()
    if not newest:
        raise UserError(
            f"metric={metric}: no finished evaluation in experiment {experiment_id} has it; run evaluate first, "
            "or name one of its test/... metrics"
        )
    best = newest[0]
    data, split = (f"'{best.data.tags.get(name)}'" for name in ("data_digest", "split_hash"))
    same = f"tags.data_digest = {data}", f"tags.split_hash = {split}"
    # Among 10,000 runs MLflow takes six seconds to sort by a metric; a few times "better than this" take one.
    while better := search(*same, above=best.data.metrics[metric], most=FEW):
        best = max(better, key=lambda run: run.data.metrics[metric])
    others = [
        *search(f"tags.data_digest != {data}", most=MOST),
        *search(same[0], f"tags.split_hash != {split}", most=MOST),
    ]
    others.sort(key=lambda run: -run.info.start_time)
    return Best(best, [f"{run.info.run_name} ({run.info.run_id})" for run in others[:NAMED]], len(others))


def log_model(onnx: Path, name: str, tags: dict[str, str]) -> ModelVersion:
    """Log the exported classifier as an MLflow model of the active run and register it as the newest challenger.

    A version of the very same file whose run ended early, for it was killed, say, is taken up instead.
    """
    client, tags = MlflowClient(), tags | {DIGEST: hashlib.sha256(onnx.read_bytes()).hexdigest()}
    if (number := _left_over(name, tags)) is None:
        with log_arguments(onnx) as arguments:
            logged = mlflow.pyfunc.log_model(name="classifier", **arguments)
        # With its tags at once: without them nobody could tell what it is.
        number = str(mlflow.register_model(logged.model_uri, name, tags=tags).version)
    challenge(name, number)
    return client.get_model_version(name, number)


def _left_over(name: str, tags: dict[str, str]) -> str | None:
    """The number of a version with these tags that a run has left which did not come to its end."""
    for known in MlflowClient().search_model_versions(f"name = '{name}'", order_by=["version_number DESC"]):
        same = tags.items() <= known.tags.items()
        if same and known.run_id and get_run(known.run_id).info.status in ENDED_EARLY:
            say(f"{name} version {known.version} is this very file, registered by a run that did not end: taking it up")
            return str(known.version)
    return None


def challenge(name: str, number: str) -> None:
    """This version becomes the challenger, or a newer one that `sslbt register` added meanwhile."""
    client, before = MlflowClient(), ""
    ours = f"name = '{name}' and tags.evaluation != ''"
    while number != before:  # whoever is last to set the alias has looked afterwards, on whichever machine
        client.set_registered_model_alias(name, CHALLENGER, number)
        before = number
        (newest,) = client.search_model_versions(ours, max_results=1, order_by=["version_number DESC"])
        number = str(newest.version)


def version(name: str, which: str) -> ModelVersion:
    """A version of a model by its number or alias.

    Raises:
        UserError: there is none.
    """
    client = MlflowClient()
    try:
        return client.get_model_version(name, which) if which.isdecimal() else _by_alias(name, which)
    except MlflowException as error:
        if not absent(error):
            raise
        known = f"version {which}" if which.isdecimal() else which
        raise UserError(f"{name}: no {known} in {mlflow.get_registry_uri()}; `sslbt register` adds versions") from error


def champion(name: str) -> ModelVersion | None:
    """The version in service, if there is one."""
    try:
        return _by_alias(name, CHAMPION)
    except MlflowException as error:
        if absent(error):
            return None
        raise


def _by_alias(name: str, alias: str) -> ModelVersion:
    return MlflowClient().get_model_version_by_alias(name, alias)


def promote(name: str, version: ModelVersion) -> None:
    """Put a version into service by moving one alias; the one before stays reachable as `previous`."""
    client = MlflowClient()
    before = champion(name)
    if before and before.version == version.version:
        return
    # In this order: whoever is killed in between leaves a champion that is its own way back, never none at all.
    if before:
        client.set_registered_model_alias(name, PREVIOUS, before.version)
    client.set_registered_model_alias(name, CHAMPION, version.version)


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Nobody else of this machine moves the aliases of a model meanwhile."""
    key = hashlib.sha256(f"{mlflow.get_registry_uri()} {name}".encode()).hexdigest()[:16]
    with waiting.alone(cache_folder() / "registry" / f"{key}.lock", f"to decide which version of {name} is in service"):
        yield


def asked_by() -> str:
    """Who is at work: the name a tracking server knows, or the system's."""
    return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()


def tag(version: ModelVersion, **facts: str) -> None:
    """What is known of a version."""
    for key, value in facts.items():
        MlflowClient().set_model_version_tag(version.name, version.version, key, value)


def evaluation_like(evaluation: str, version: ModelVersion) -> str | None:
    """The newest evaluation of a version's classifier on the data and test patients of another evaluation."""
    asked = get_run(evaluation)
    conditions = [
        FINISHED,
        *(f"tags.{name} = '{asked.data.tags.get(name)}'" for name in ("data_digest", "split_hash")),
        f"tags.classifier = '{version.tags.get('classifier')}'",
    ]
    found = MlflowClient().search_runs(
        [asked.info.experiment_id], " and ".join(conditions), max_results=1, order_by=[NEWEST_FIRST]
    )
    return found[0].info.run_id if found else None


def predictions_of(run_id: str, path: str) -> pd.DataFrame:
    """The table of predictions an evaluation logged."""
    from sslbt.evaluation.metrics import read_table  # needs scikit-learn, which a service may lack

    return read_table(io.StringIO(mlflow.artifacts.load_text(f"runs:/{run_id}/{path}")))
