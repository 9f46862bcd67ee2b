"""Which run is best, and which version of the classifier is in service."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from serve.package import log_arguments
from sslbt.errors import UserError

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
FINISHED = "attributes.status = 'FINISHED' and tags.stage = 'evaluate' and tags.split != 'none'"
NEWEST_FIRST = "attributes.start_time DESC"
FEW = 50  # better ones are looked at at once
NAMED = 20  # evaluations left out are called by name
MOST = 1_000  # are counted


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
    """Log the exported classifier as an MLflow model of the active run and register it as the newest challenger."""
    with log_arguments(onnx) as arguments:
        logged = mlflow.pyfunc.log_model(name="classifier", registered_model_name=name, **arguments)
    client = MlflowClient()
    version = client.get_model_version(name, str(logged.registered_model_version))
    for key, value in tags.items():
        client.set_model_version_tag(name, version.version, key, value)
    client.set_registered_model_alias(name, CHALLENGER, version.version)
    return version


def champion(name: str) -> ModelVersion | None:
    """The version in service, if there is one."""
    try:
        return MlflowClient().get_model_version_by_alias(name, CHAMPION)
    except MlflowException:
        return None


def promote(name: str, version: ModelVersion) -> None:
    """Put a version into service; the one before stays reachable as `previous`."""
    client = MlflowClient()
    before = champion(name)
    if before and before.version != version.version:
        client.set_registered_model_alias(name, PREVIOUS, before.version)
    client.set_registered_model_alias(name, CHAMPION, version.version)


def predictions_of(run_id: str, path: str) -> pd.DataFrame:
    """The table of predictions an evaluation logged."""
    return pd.read_csv(
        io.StringIO(mlflow.artifacts.load_text(f"runs:/{run_id}/{path}")), dtype={"file": str, "family": str}
    )
