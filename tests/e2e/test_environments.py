"""Environments that are not the one the tests run in: uv's own, and those of other Pythons."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from image import ask, build, served

from serve.batch import score
from sslbt.tracking.models import ONNX, RELEASED, RELEASED_FOLDER


def test_uv_builds_its_own_environment(place, phantoms, monkeypatch):
    monkeypatch.setenv("MLFLOW_ENV_ROOT", str(place.folder / "environments"))
    if "PIP_FIND_LINKS" in os.environ:  # uv reads nothing of pip's, not even where to find a smaller torch
        monkeypatch.setenv("UV_FIND_LINKS", os.environ["PIP_FIND_LINKS"])
    code, said = place.mlflow_run("-e", "prepare", "-P", f"data={phantoms}", "--env-manager", "uv")
    assert code == 0, said
    (run,) = place.runs()
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.project.env"] == "uv"
    assert str(place.folder / "environments") in said, "the command ran in the environment that uv made"


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_the_service_scores_and_serves_alike_with_a_newer_python(version: str, phantoms: Path, tmp_path: Path) -> None:
    """From the pins, as the Dockerfile makes it; none of our own modules uses what is to be removed from Python."""
    image = build(tmp_path / "root", interpreter(version))
    slices, name = tmp_path / "slices", "1.mat"
    slices.mkdir()
    for number in range(1, 9):
        shutil.copy(phantoms / f"{number}.mat", slices)
    score(RELEASED_FOLDER / Path(ONNX).name, slices, tmp_path / "here.csv")
    words = ("score", "--model", RELEASED, "--input", slices, "--output", tmp_path / "there.csv")
    code, said = image.run(*words, PYTHONWARNINGS="default")
    assert code == 0, said
    assert not re.search(rf"{image.folder}/.*Warning", said), said
    here, there = (pd.read_csv(tmp_path / f"{where}.csv") for where in ("here", "there"))
    pd.testing.assert_frame_equal(there, here, rtol=0, atol=1e-5)
    with served(image, *image.command, "--model", RELEASED, PYTHONWARNINGS="default") as port:
        found = ask(port, name, (slices / name).read_bytes())
    np.testing.assert_allclose(found, here.set_index("file").loc[name].filter(like="p_").astype(float), atol=1e-5)


def interpreter(version: str) -> str:
    """Where this Python is; pyenv, if it is there, is asked for it by name."""
    asked = os.environ | {"PYENV_VERSION": version}
    words = [f"python{version}", "-c", "import sys; print(sys.executable)"]
    try:
        return subprocess.run(words, env=asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        assert "SSLBT_NEVER_SKIP" not in os.environ, f"Python {version} is missing"
        pytest.skip(f"Python {version} is not installed")
