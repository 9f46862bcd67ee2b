from collections.abc import Iterator

import mlflow
import pytest
from mlflow import MlflowClient
from stores import client_of, tracking_at


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    """A real store, in a database of its own."""
    return client_of(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db")


@pytest.fixture
def experiment(store: MlflowClient, request: pytest.FixtureRequest) -> Iterator[str]:
    """An experiment of this test's own, the current one."""
    with tracking_at(store.tracking_uri):
        yield mlflow.set_experiment(request.node.nodeid).experiment_id
