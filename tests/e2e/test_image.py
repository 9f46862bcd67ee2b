"""The service in its own environment, without torch: what the Dockerfile makes, followed without docker."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from image import BIN, CONTEXT, Image, ask, build, served
from makers import dicom, encoded, nifti
from mlflow import MlflowClient
from team import free_port

from serve.session import Classifier
from sslbt.data.formats import decode
from sslbt.tracking.models import RELEASED, RELEASED_FOLDER

NAME = "brain-tumor-classifier"


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Image:
    return build(tmp_path_factory.mktemp("image") / "root")


@pytest.fixture(scope="module")
def pixels(phantoms) -> np.ndarray:
    return decode((phantoms / "1.mat").read_bytes(), "1.mat").astype(np.uint16)


@pytest.fixture(scope="module")
def files(phantoms, pixels) -> dict[str, bytes]:
    """One slice in every form."""
    forms = {"1.png": encoded(pixels, "PNG"), "1.dcm": dicom(pixels)}
    return {"1.mat": (phantoms / "1.mat").read_bytes(), **forms, "1.nii.gz": nifti(pixels[None])}


@pytest.fixture(scope="module")
def expected(pixels) -> list[float]:
    """What the released classifier says of it, here."""
    scores = Classifier.load(RELEASED_FOLDER / "classifier.onnx").scores([pixels])
    return scores.probabilities[0].tolist()


def version_of(port: int) -> str:
    return httpx.get(f"http://127.0.0.1:{port}/version").json()["model_version"]


def test_the_dockerfile_is_good_style() -> None:
    subprocess.run([BIN / "hadolint", CONTEXT / "Dockerfile"], check=True)


def test_it_has_what_the_pins_say_and_nothing_that_trains(image: Image) -> None:
    code = "from importlib.metadata import distributions as d; print(*(f'{x.name}=={x.version}' for x in d()))"
    told = subprocess.run([image.python, "-c", code], capture_output=True, text=True, check=True, env=image.environment)
    there = dict(pin.split("==") for pin in told.stdout.split())
    assert there == {name: version(name) for name in there}
    trains = {"torch", "mlflow", "scikit-learn", "scipy", "matplotlib", "onnx", "onnxscript", "optuna", "pytest"}
    assert not trains & there.keys()
    assert {path.name for path in (image.folder / "sslbt/released").iterdir()} == {"README.md", "classifier.onnx"}


def test_released_is_served_without_mlflow_and_nothing_is_written(
    image: Image, files: dict[str, bytes], expected: list[float], tmp_path: Path
) -> None:
    for forbidden in ("mlflow", "torch"):
        (tmp_path / f"{forbidden}.py").write_text(f"raise SystemExit('{forbidden} is imported')")
    before = sorted(image.root.rglob("*"))
    path = f"{tmp_path}:{image.environment['PYTHONPATH']}"
    with served(image, *image.command, "--model", RELEASED, PYTHONPATH=path) as port:
        for name, data in files.items():
            if not name.endswith(".nii.gz"):
                np.testing.assert_allclose(ask(port, name, data), expected, atol=1e-5, err_msg=name)
    assert sorted(image.root.rglob("*")) == before


def test_it_scores_files_of_every_form(
    image: Image, files: dict[str, bytes], expected: list[float], tmp_path: Path
) -> None:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    code, said = image.run("score", "--model", RELEASED, "--input", tmp_path, "--output", tmp_path / "scores.csv")
    assert code == 0, said
    table = pd.read_csv(tmp_path / "scores.csv")
    assert len(table) == len(files)
    np.testing.assert_allclose(table.filter(like="p_"), [expected] * len(files), atol=1e-5)
    assert "no run of it in MLflow" in said


class Registry:
    """The registry of a file, and a server of the same."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.file = f"sqlite:///{folder}/mlflow.db"
        self.client = MlflowClient(self.file)
        self.client.create_registered_model(NAME)

    @property
    def server(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self) -> str:
        """Another version into service; gives its number."""
        source = self.folder / str(len(self.client.search_model_versions(f"name = '{NAME}'")))
        (source / "artifacts").mkdir(parents=True)
        shutil.copy(RELEASED_FOLDER / "classifier.onnx", source / "artifacts")
        number = str(self.client.create_model_version(NAME, source.as_uri()).version)
        self.client.set_registered_model_alias(NAME, "champion", number)
        return number

    @contextmanager
    def serving(self) -> Iterator[None]:
        words = ["mlflow", "server", "--backend-store-uri", self.file, "--port", str(self.port), "--workers", "1"]
        with open(self.folder / "log", "w") as log:
            own = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
            process = subprocess.Popen(
                [sys.executable, "-m", *words], env=own, stdout=log, stderr=log, start_new_session=True
            )
        try:
            for _ in range(240):
                with suppress(httpx.TransportError):
                    if httpx.get(f"{self.server}/health").status_code == 200:
                        break
                assert process.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.5)
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> Iterator[Registry]:
    own = Registry(tmp_path_factory.mktemp("registry"))
    with own.serving():
        yield own


@pytest.mark.parametrize("kind", ["file", "server"])
def test_the_champion_of_a_registry_is_served_and_the_next_one_after_it(
    image: Image, registry: Registry, files: dict[str, bytes], expected: list[float], kind: str
) -> None:
    number, where = registry.put(), {"MLFLOW_TRACKING_URI": getattr(registry, kind)}
    with served(image, *image.command, **where) as port:
        assert version_of(port) == number
        np.testing.assert_allclose(ask(port, "1.png", files["1.png"]), expected, atol=1e-5)
    following = registry.put()
    with served(image, *image.command, **where) as port:  # begins with the last one it knows of
        until = time.monotonic() + 120
        while version_of(port) != following:
            assert time.monotonic() < until
            time.sleep(0.1)
        np.testing.assert_allclose(ask(port, "1.png", files["1.png"]), expected, atol=1e-5)


def test_a_registry_that_is_away_keeps_nobody_from_serving_what_was_fetched_before(
    image: Image, registry: Registry, files: dict[str, bytes], expected: list[float]
) -> None:
    where = {"MLFLOW_TRACKING_URI": registry.file}
    number = registry.put()
    code, said = image.run("score", "--input", registry.folder / "0", "--output", registry.folder / "s.csv", **where)
    assert code == 2, said  # a folder without slices; but now the version is known here
    Path(registry.folder, "mlflow.db").rename(registry.folder / "away.db")
    try:
        with served(image, *image.command, **where) as port:
            assert version_of(port) == number
            np.testing.assert_allclose(ask(port, "1.png", files["1.png"]), expected, atol=1e-5)
    finally:
        Path(registry.folder, "away.db").rename(registry.folder / "mlflow.db")
