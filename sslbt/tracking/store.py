"""The tracking store: what it holds, and telling "there is no such thing" from "the store can't say"."""

import os
import re
from pathlib import Path
from tempfile import mkdtemp

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError

from sslbt.errors import UserError
from sslbt.tracking.holder import temporary

SQLITE = re.compile(r"\(sqlite3\.OperationalError\) (.*(?:full|readonly|unable to open|disk I/O).*)")
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def absent(error: MlflowException) -> bool:
    """Whether the store answered, and there is no such run, model or alias."""
    return error.error_code in ABSENT


def trouble(error: Exception) -> str:
    """One sentence where a store does not answer or does not let this user in; empty for anything else."""
    uri, said = mlflow.get_tracking_uri(), str(error)
    if "database is locked" in said:
        return f"{uri}: another process keeps it locked; if that one hangs, end it, then give the same command again"
    if isinstance(error, OperationalError):
        return f"{uri}: can't be opened ({error.orig}); is it what MLFLOW_TRACKING_URI should be?"
    if not isinstance(error, MlflowException):
        return ""
    if found := SQLITE.search(said):
        return f"{uri}: {found[1]}; free space or change its permissions, then run it again"
    if "MLFLOW_EXPERIMENT_ID" in said:
        return f"{uri}: holds no experiment {os.environ.get('MLFLOW_EXPERIMENT_ID')}; unset MLFLOW_EXPERIMENT_ID"
    user = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    if "error code 401" in said:
        given = f"{user} with this password is not known there" if user else "it asks who you are"
        return f"{uri}: {given}; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    if "error code 403" in said or error.error_code == "PERMISSION_DENIED":
        return f"{uri}: {user or 'you'} may not do this there; ask who looks after the server"
    if "failed with exception" in said:
        return f"{uri}: no answer; is the server up, and is MLFLOW_TRACKING_URI its address?"
    return ""


def get_run(run_id: str) -> Run:
    """A run of the tracking store.

    Raises:
        UserError: there is none of this id, and where was looked.
    """
    try:
        return MlflowClient().get_run(run_id)
    except MlflowException as error:
        if not absent(error):
            raise
        raise UserError(
            f"{run_id}: no such run in {mlflow.get_tracking_uri()}; look in the UI, or set MLFLOW_TRACKING_URI"
        ) from error


def download(uri: str, problem: str, to: Path | None = None) -> Path:
    """A file of a run or a model; into a folder, or one that is gone when this process is.

    Raises:
        UserError: it is not there; `problem` begins the sentence.
    """
    try:
        return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(to or mkdtemp(dir=temporary()))))
    except (MlflowException, OSError) as error:
        if trouble(error):
            raise
        raise UserError(f"{problem} ({str(error).splitlines()[0]})") from error
