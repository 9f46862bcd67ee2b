"""Which run is best, and which version of the classifier is in service."""

import io
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


@dataclass(frozen=True)
class Best:
    """The best evaluation, and those that could not be compared with it."""

    run: MlflowRun
    left_out: list[str]


def find_best(experiment_id: str, metric: str) -> Best:
    """The finished evaluation with the highest `metric` among those on the newest evaluation's data and test patients.

    Raises:
        UserError: the experiment has no finished evaluation with that metric.
    """
    finished = "attributes.status = 'FINISHED' and tags.stage = 'evaluate'"
    runs = list(MlflowClient().search_runs([experiment_id], finished, order_by=["attributes.start_time DESC"]))
    runs = [run for run in runs if metric in run.data.metrics and run.data.tags.get("split") != "none"]
    if not runs:
        raise UserError(
            f"metric={metric}: no finished evaluation in experiment {experiment_id} has it; run evaluate first, "
            "or name one of its test/... metrics"
        )
    same = [run for run in runs if _test(run) == _test(runs[0])]
    best = max(same, key=lambda run: run.data.metrics[metric])
    return Best(best, [f"{run.info.run_name} ({run.info.run_id})" for run in runs if run not in same])


def _test(run: MlflowRun) -> tuple[str | None, str | None]:
    return run.data.tags.get("data_digest"), run.data.tags.get("split_hash")


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
