"""One small data set and one finished `mlflow run` of the whole main job, shared by the tests of this folder."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from sslbt.data.phantom import make_sample

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Place:
    """A folder with its own tracking store and cache, and processes run in it as a user would."""

    folder: Path

    MLFLOW_RUN = ("mlflow", "run", ROOT, "--env-manager", "local")

    @property
    def environment(self) -> dict[str, str]:
        own = {
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder}/mlflow.db",
            "SSLBT_HOME": str(self.folder / "home"),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        }
        return {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_RUN")} | own

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.folder}/mlflow.db")

    def start(self, *words: object) -> subprocess.Popen[str]:
        """A process in its own group, its output in one pipe."""
        return subprocess.Popen(
            [str(word) for word in words],
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A job in the background, as CI may be, is started deaf to Ctrl-C, and so would be all it starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *words: object) -> tuple[int, str]:
        """Exit code and everything said."""
        process = self.start(*words)
        said = process.communicate(timeout=500)[0]
        return process.returncode, said

    def stop(self, process: subprocess.Popen[str], number: int = signal.SIGKILL) -> str:
        """Signal a process and all it started; what it says to that."""
        os.killpg(process.pid, number)
        return process.communicate(timeout=120)[0]

    def mlflow_run(self, *words: object) -> tuple[int, str]:
        return self.run(*self.MLFLOW_RUN, *words)

    def runs(self, condition: str = "") -> list:
        return list(self.client.search_runs(["0"], condition, max_results=1000))


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
