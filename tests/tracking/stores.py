"""MLflow with a tracking store of a test's own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import mlflow
from mlflow import MlflowClient


@contextmanager
def tracking_at(uri: str) -> Iterator[MlflowClient]:
    """A store as the current one, without an experiment or a run chosen before.

    MLflow remembers both in variables, of its own and of the environment, for subprocesses: they go again.
    """
    before = mlflow.get_tracking_uri()
    with mock.patch.dict(os.environ), mock.patch.object(mlflow.tracking.fluent, "_active_experiment_id", None):
        for chosen in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
            os.environ.pop(chosen, None)
        mlflow.set_tracking_uri(uri)
        try:
            yield MlflowClient(uri)
        finally:
            mlflow.set_tracking_uri(before)
