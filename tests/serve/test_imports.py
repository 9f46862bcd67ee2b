import os
import subprocess
import sys
from pathlib import Path

import pytest

RELEASED = Path(__file__).parents[2] / "sslbt/released/classifier.onnx"


@pytest.mark.parametrize("module", ["serve.app", "serve.session", "serve.batch"])
def test_scoring_needs_neither_torch_nor_mlflow(module):
    code = f"import sys, {module}; sys.exit(sorted({{'torch', 'mlflow'}} & sys.modules.keys()) or 0)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("module", ["serve.session", "sslbt.export.parity"])
def test_onnx_runtime_reports_to_nobody(module, tmp_path):
    """It keeps what it is to report in the home folder; under CI it would be silent by itself."""
    code = f"import {module}, onnxruntime; onnxruntime.InferenceSession({str(RELEASED)!r})"
    own = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    subprocess.run([sys.executable, "-c", code], check=True, env=own | {"HOME": str(tmp_path)})
    assert not list(tmp_path.rglob("*onnxruntime*"))
