"""The runs of a sweep's trials."""

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from sslbt.tracking.resume import PRUNED

SWEEP = "sweep"  # a tag: which sweep a run is a trial of


def adopt(parent: str, sweep: str) -> None:
    """Trials that earlier runs of this sweep made become children of the run that goes on with it."""
    for child in mlflow.search_runs(filter_string=f"tags.{SWEEP} = '{sweep}'", output_format="list"):
        if child.data.tags.get(MLFLOW_PARENT_RUN_ID) != parent:
            MlflowClient().set_tag(child.info.run_id, MLFLOW_PARENT_RUN_ID, parent)


def done(sweep: str, key: str) -> MlflowRun | None:
    """The run of this sweep that has done the work of this key or was given up, if there is one."""
    condition = f"tags.{SWEEP} = '{sweep}' and tags.key = '{key}'"
    runs = mlflow.search_runs(filter_string=condition, output_format="list")
    return next((run for run in runs if run.info.status == "FINISHED" or PRUNED in run.data.tags), None)


def history(run: MlflowRun, metric: str) -> dict[int, float]:
    """A metric by step."""
    return {point.step: point.value for point in MlflowClient().get_metric_history(run.info.run_id, metric)}
