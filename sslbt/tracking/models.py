"""From what a person calls a model (run id, path, registry address, `released`) to its file.

The store is imported where it is asked: MLflow takes a second, for which a service that has its file need not wait.
"""

import re
from pathlib import Path

import sslbt
from sslbt.data.source import at
from sslbt.errors import UserError
from sslbt.tracking.served import REGISTRY, latest, parts

RUN_ID = "[0-9a-f]{32}"
ENCODER = "checkpoint/encoder.safetensors"  # of the best epoch
LAST_ENCODER = "checkpoint/encoder_last.safetensors"
CLASSIFIER = "checkpoint/classifier.safetensors"
ONNX = "onnx/classifier.onnx"
SMALL_ONNX = "onnx/classifier_int8.onnx"

RELEASED = "released"  # the weights that come with sslbt
RELEASED_FOLDER = Path(sslbt.__file__).parent / "released"


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
    if at(model).is_file():
        return at(model)
    from sslbt.tracking import registry, store

    if model.startswith(REGISTRY):
        run_id = registry.version(*parts(model)).run_id
        if not run_id:
            raise UserError(f"{model}: no run of sslbt registered it; give one that `sslbt register` made")
        return store.download(f"runs:/{run_id}/{path}", f"{model}: the run that registered it has no {path}")
    if not re.fullmatch(RUN_ID, model):
        raise UserError(
            f"{model}: neither a checkpoint file, a run id (32 hexadecimal digits), models:/NAME@ALIAS nor {RELEASED}"
        )
    run = store.get_run(model)
    return store.download(f"runs:/{model}/{path}", f"{model}: the run ({run.info.run_name}) has no {path}")


def onnx_file(model: str) -> Path:
    """An exported classifier by run id, path, registry address (models:/NAME@ALIAS) or `released`."""
    if model == RELEASED:
        return _released(ONNX)
    if model.startswith(REGISTRY):
        return latest(model)[1]
    if re.fullmatch(RUN_ID, model):
        from sslbt.tracking import store

        store.get_run(model)
        return store.download(f"runs:/{model}/{ONNX}", f"{model}: the run has no {ONNX}; give a register run")
    path = at(model)
    if not path.is_file():
        raise UserError(f"{model}: no such file, run id or registry address (models:/NAME@ALIAS), nor {RELEASED}")
    return path


def _released(path: str) -> Path:
    file = RELEASED_FOLDER / Path(path).name
    if not file.is_file():
        raise UserError(
            f"{RELEASED}: {file} is missing, this copy of sslbt came without it; install sslbt from the whole "
            "repository, or give a run id or a file"
        )
    return file
