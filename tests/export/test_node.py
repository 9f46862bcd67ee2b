"""The same file in another runtime: ONNX Runtime of Node answers as Python's."""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from sslbt.export.onnx import OUTPUTS
from sslbt.tracking.models import ONNX, RELEASED, onnx_file

NODE = Path(__file__).parent / "node"


@pytest.fixture(scope="module", autouse=True)
def node() -> None:
    """`make test` installs its packages where there is npm; .ci/run sees to it that there is."""
    if shutil.which("node") and (NODE / "node_modules").is_dir():
        return
    assert "SSLBT_NEVER_SKIP" not in os.environ, "node or its packages are missing"
    pytest.skip("needs node and npm")


def of_node(file: Path, image: np.ndarray) -> dict[str, np.ndarray]:
    asked = {"shape": image.shape, "image": base64.b64encode(np.ascontiguousarray(image).tobytes()).decode()}
    command = ["node", NODE / "answer.js", file]
    said = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, timeout=120, check=True)
    told = json.loads(said.stdout.splitlines()[-1])
    return {name: np.reshape(own["values"], own["shape"]) for name, own in told.items()}


def of_python(file: Path, image: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": image}), strict=True))


@pytest.mark.parametrize("side", [(96, 96), (333, 50), (512, 512)])
def test_node_answers_as_python(exported: Any, draw: Any, side: tuple[int, int]) -> None:
    image = draw(3, *side)
    ours, theirs = of_python(exported.path, image), of_node(exported.path, image)
    assert theirs.keys() == set(OUTPUTS)
    for name in OUTPUTS:
        np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-3, atol=1e-4)


def test_node_answers_as_python_by_the_released_classifier(draw: Any) -> None:
    file, image = onnx_file(RELEASED), draw(2, 256, 256)
    assert file.name == Path(ONNX).name
    ours, theirs = of_python(file, image), of_node(file, image)
    for name in ours:
        np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-3, atol=1e-4)
