"""One small data set and one finished `mlflow run` of the whole main job, shared by the tests of this folder."""

import shutil
from functools import partial
from pathlib import Path

import pytest
from forks import FIT_STEPS
from place import Place

from sslbt.data.cache import prepare
from sslbt.data.phantom import make_sample
from sslbt.data.source import Source
from sslbt.data.splits import make_split
from sslbt.evaluation import outliers
from sslbt.steps.finetune import no_brain


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
def shortly_fitted(tmp_path_factory, phantoms) -> Path:
    """What tells what is no brain MRI, as fine-tuning finds it where it was fitted before; a minute less to wait."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSLBT_HOME", str(home))
        patch.setattr(outliers, "fit", partial(outliers.fit, steps=FIT_STEPS))
        cache = prepare(Source(str(phantoms)))
        no_brain(cache, make_split(cache.table, "patient", cache.classes))
    (folder,) = home.glob("outlier-*")
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory, main_command, shortly_fitted) -> tuple[Place, str]:
    """Where `mlflow run .` of the main job has run, and what it said."""
    place = Place(tmp_path_factory.mktemp("main"))
    shutil.copytree(shortly_fitted, place.folder / "home" / shortly_fitted.name)
    code, said = place.mlflow_run(*main_command, "-P", f"output={place.folder}/scores.csv")
    assert code == 0, said
    return place, said
