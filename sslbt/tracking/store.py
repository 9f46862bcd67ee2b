"""The tracking store: telling "there is no such thing" from "the store can't say"."""

import os

import mlflow
from mlflow.exceptions import MlflowException

ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def absent(error: MlflowException) -> bool:
    """Whether the store answered, and there is no such run, model or alias."""
    return error.error_code in ABSENT


def trouble(error: Exception) -> str:
    """One sentence where a tracking server does not answer or does not let this user in; empty for anything else."""
    if not isinstance(error, MlflowException):
        return ""
    uri, said = mlflow.get_tracking_uri(), str(error)
    user = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    if "error code 401" in said:
        given = f"{user} with this password is not known there" if user else "it asks who you are"
        return f"{uri}: {given}; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    if "error code 403" in said or error.error_code == "PERMISSION_DENIED":
        return f"{uri}: {user or 'you'} may not do this there; ask who looks after the server"
    if "failed with exception" in said:
        return f"{uri}: no answer; is the server up, and is MLFLOW_TRACKING_URI its address?"
    return ""
