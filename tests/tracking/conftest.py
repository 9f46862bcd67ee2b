import os
from collections.abc import Iterator
from unittest import mock

import mlflow
import pytest
from mlflow import MlflowClient


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    """A real store, in a database of its own."""
    return MlflowClient(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db")


@pytest.fixture
def experiment(store: MlflowClient, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An experiment of this test's own, the current one; MLflow tells subprocesses by variables, which go again."""
    before = mlflow.get_tracking_uri()
    monkeypatch.setattr(mlflow.tracking.fluent, "_active_experiment_id", None)
    with mock.patch.dict(os.environ):
        mlflow.set_tracking_uri(store.tracking_uri)
        yield mlflow.set_experiment(request.node.nodeid).experiment_id
        mlflow.set_tracking_uri(before)
