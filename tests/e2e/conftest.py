"""One small data set and one finished `mlflow run` of the whole main job, shared by the tests of this folder."""

from pathlib import Path

import pytest
from place import Place

from sslbt.data.phantom import make_sample


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory) -> Path:
    """36 patients, about 200 slices of 64 x 64."""
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    make_sample(folder, patients=36, size=64)
    return folder


@pytest.fixture(scope="session")
def make_place() -> type[Place]:
    return Place


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="session")
def main_command(phantoms) -> list[str]:
    return ["-P", f"data={phantoms}", "-P", "preset=tiny", "-P", "num_pairs=64"]


@pytest.fixture(scope="session")
def finished(tmp_path_factory, main_command) -> tuple[Place, str]:
    """Where `mlflow run .` of the main job has run, and what it said."""
    place = Place(tmp_path_factory.mktemp("main"))
    code, said = place.mlflow_run(*main_command, "-P", f"output={place.folder}/scores.csv")
    assert code == 0, said
    return place, said
