"""From what a person calls a model (run id, path, registry address, `released`) to its file."""

import re
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

import sslbt
from sslbt.errors import UserError
from sslbt.tracking.store import absent, trouble

RUN_ID = "[0-9a-f]{32}"
ENCODER = "checkpoint/encoder.safetensors"  # of the best epoch
LAST_ENCODER = "checkpoint/encoder_last.safetensors"
CLASSIFIER = "checkpoint/classifier.safetensors"
ONNX = "onnx/classifier.onnx"
SMALL_ONNX = "onnx/classifier_int8.onnx"

RELEASED = "released"  # the weights that come with sslbt
RELEASED_FOLDER = Path(sslbt.__file__).parent / "released"


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


def checkpoint_file(model: str, path: str) -> Path:
    """A checkpoint by run id, path or registry address.

    Args:
        model: a run id (32 hexadecimal digits), a file, an address such as models:/brain-tumor-classifier@champion,
            which stands for the run that registered it, or `released`.
        path: where the run keeps it: `ENCODER` or `CLASSIFIER`.

    Raises:
        UserError: neither a file nor a run that has one.
    """
    if model == RELEASED:
        return _released(path)
    if Path(model).expanduser().is_file():
        return Path(model).expanduser()
    if model.startswith("models:/"):
        return _download(f"runs:/{registered_by(model)}/{path}", f"{model}: the run that registered it has no {path}")
    if not re.fullmatch(RUN_ID, model):
        raise UserError(
            f"{model}: neither a checkpoint file, a run id (32 hexadecimal digits), models:/NAME@ALIAS nor {RELEASED}"
        )
    run = get_run(model)
    return _download(f"runs:/{model}/{path}", f"{model}: the run ({run.info.run_name}) has no {path}")


def onnx_file(model: str) -> Path:
    """An exported classifier by run id, path, registry address (models:/NAME@ALIAS) or `released`."""
    if model == RELEASED:
        return _released(ONNX)
    if model.startswith("models:/"):
        return _download(f"{model}/artifacts/classifier.onnx", f"{model}: no such model in {mlflow.get_registry_uri()}")
    if re.fullmatch(RUN_ID, model):
        get_run(model)
        return _download(f"runs:/{model}/{ONNX}", f"{model}: the run has no {ONNX}; give a register run")
    path = Path(model).expanduser()
    if not path.is_file():
        raise UserError(f"{model}: no such file, run id or registry address (models:/NAME@ALIAS), nor {RELEASED}")
    return path


def registered_by(address: str) -> str:
    """The id of the run that registered a model.

    Raises:
        UserError: no such model, or one that no run of sslbt registered.
    """
    try:
        run_id = mlflow.models.get_model_info(address).run_id
    except (MlflowException, OSError) as error:
        if trouble(error):
            raise
        said = str(error).splitlines()[0]
        raise UserError(f"{address}: no such model in {mlflow.get_registry_uri()} ({said})") from error
    if not run_id:
        raise UserError(f"{address}: no run of sslbt registered it; give one that `sslbt register` made")
    return run_id


def _released(path: str) -> Path:
    file = RELEASED_FOLDER / Path(path).name
    if not file.is_file():
        raise UserError(
            f"{RELEASED}: {file} is missing, this copy of sslbt came without it; install sslbt from the whole "
            "repository, or give a run id or a file"
        )
    return file


def _download(uri: str, problem: str) -> Path:
    try:
        return Path(mlflow.artifacts.download_artifacts(uri))
    except (MlflowException, OSError) as error:
        if trouble(error):
            raise
        raise UserError(f"{problem} ({str(error).splitlines()[0]})") from error
