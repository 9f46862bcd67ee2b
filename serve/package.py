"""What `mlflow.pyfunc.log_model` needs to log the classifier so that it loads without torch and without pickle."""

import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from PIL import Image

from serve.session import Classifier

ROOT = Path(__file__).parents[1]
CODE = (
    "serve/__init__.py",
    "serve/pictures.py",
    "serve/session.py",
    "sslbt/__init__.py",
    "sslbt/errors.py",
    "sslbt/data/__init__.py",
    "sslbt/data/dicom.py",
    "sslbt/data/formats.py",
    "sslbt/data/matlab.py",
    "sslbt/data/nifti.py",
    "sslbt/data/raster.py",
    "sslbt/data/slices.py",
)
REQUIREMENTS = (
    "mlflow",
    "numpy",
    "pandas",
    "onnxruntime",
    "h5py",
    "isal",
    "pillow",
    "pydicom",
    "python-gdcm",
    "nibabel",
    "pydantic",
)
# MLflow puts the model's own code before the installed packages; the rest of them must stay in reach
REACH = "\n__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n"


@contextmanager
def log_arguments(onnx: Path) -> Iterator[dict[str, Any]]:
    """Keyword arguments for `mlflow.pyfunc.log_model`, valid inside the `with` block.

    Raises:
        UserError: the file is no classifier of sslbt.
    """
    classes = Classifier.load(onnx).classes
    with tempfile.TemporaryDirectory() as folder:
        for name in CODE:
            target = Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
            if target.name == "__init__.py":
                target.write_text(target.read_text() + REACH)
        yield {
            "python_model": str(ROOT / "serve" / "pyfunc.py"),
            "artifacts": {"onnx": str(onnx)},
            "code_paths": [str(Path(folder, package)) for package in ("serve", "sslbt")],
            "signature": signature(classes),
            "pip_requirements": [f"{name}=={version(name)}" for name in REQUIREMENTS],
            "input_example": example(),
        }


def signature(classes: tuple[str, ...]) -> ModelSignature:
    """A column `image` of encoded files in; label, p_<class> for each class, confidence, abstain, reason out."""
    scores = [ColSpec(DataType.double, name, required=False) for name in (*(f"p_{c}" for c in classes), "confidence")]
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, "image")]),
        outputs=Schema(
            [
                ColSpec(DataType.string, "label", required=False),
                *scores,
                ColSpec(DataType.boolean, "abstain"),
                ColSpec(DataType.string, "reason"),
            ]
        ),
    )


def example() -> pd.DataFrame:
    """A request of one picture: a small disc that fades to its edge, as a PNG file's bytes."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    grey = np.clip(1 - np.hypot(x, y), 0, 1) * 255
    buffer = io.BytesIO()
    Image.fromarray(grey.astype(np.uint8)).save(buffer, "PNG")
    return pd.DataFrame({"image": [buffer.getvalue()]})
