"""MLflow with a tracking store of a test's own."""

import os
from collections.abc import Iterator
from contextlib import chdir, contextmanager, nullcontext
from pathlib import Path
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
            yield client_of(uri)
        finally:
            mlflow.set_tracking_uri(before)


def client_of(uri: str) -> MlflowClient:
    """A client of a store that keeps artifacts beside its file, and not in the folder that tests run in.

    MLflow puts them into the folder that is current when the store is opened for the first time.
    """
    file = Path(uri.removeprefix("sqlite:///"))
    with chdir(file.parent) if uri.startswith("sqlite:///") else nullcontext():
        return MlflowClient(uri)
