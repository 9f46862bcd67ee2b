"""MLflow's store in a new sqlite file, whole from the moment that the file is there.

MLflow makes its tables one by one in the file itself: of several processes that begin at once in an empty folder all
but one end in an error of the database, and one that is killed meanwhile leaves a file that no command can use. MLflow
finds these functions by the entry points in pyproject.toml, in `mlflow run` and `mlflow ui` too. They leave everything
else to MLflow, and import it where they are called: it imports them while it is being imported itself. They are not in
the package sslbt, which a model brings along as it was when it was logged, and which must not be imported by then.
"""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


def tracking_store(store_uri: str, artifact_uri: str | None = None) -> Any:
    """MLflow's own tracking store of this address."""
    from mlflow.tracking._tracking_service.utils import _get_sqlalchemy_store

    return _whole(lambda uri: _get_sqlalchemy_store(uri, artifact_uri), store_uri)


def registry_store(store_uri: str, **_: object) -> Any:
    """MLflow's own model registry of this address."""
    from mlflow.tracking._model_registry.utils import _get_sqlalchemy_store

    return _whole(_get_sqlalchemy_store, store_uri)


def _whole(build: Callable[[str], Any], store_uri: str) -> Any:
    from sqlalchemy.engine import make_url

    url = make_url(store_uri)
    file = Path(url.database or ":memory:")
    if file.name != ":memory:" and not url.query and not file.exists():
        with suppress(OSError):  # another process was first, or there are no links: then as MLflow does it
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(
                prefix=f".{file.name}-", dir=file.parent, ignore_cleanup_errors=True
            ) as own:
                made = Path(own, file.name).absolute()
                build(url.set(database=str(made)).render_as_string(hide_password=False)).engine.dispose()
                os.link(made, file)  # unlike a renaming, it never takes the place of what is there
    return build(store_uri)
