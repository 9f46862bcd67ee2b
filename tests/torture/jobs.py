"""One `main` in a folder of its own, its process killed at moments of its way, and what it must come to."""

import hashlib
import os
import re
import signal
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
from forks import Forks, has_ended
from mlflow import MlflowClient
from safetensors.numpy import load_file

from serve.session import Classifier

NAME = "brain-tumor-classifier"
MARK = "--- "  # begins the line of every step of main
WORDS = ["main", "--data", "sample:24", "--preset", "tiny", "--num-pairs", "32", "--output", "scores.csv"]


@dataclass(frozen=True)
class Folder:
    """Store, cache, temporary files and output of one job."""

    path: Path
    forks: Forks

    def __post_init__(self) -> None:
        (self.path / "tmp").mkdir(parents=True, exist_ok=True)
        self._all_said.mkdir(exist_ok=True)

    @property
    def _all_said(self) -> Path:
        return self.path.with_name(f"{self.path.name}-said")  # whatever becomes of the folder

    @property
    def environment(self) -> dict[str, str]:
        return {
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.path}/mlflow.db",
            "SSLBT_HOME": str(self.path / "home"),
            "TMPDIR": str(self.path / "tmp"),
        }

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.path}/mlflow.db")

    def start(self, words: list[str] = WORDS) -> int:
        said = next(path for n in count() if not (path := self._all_said / f"{n}.txt").exists())
        said.touch()  # so that no earlier one is taken for it
        return self.forks.start(words, self.path, self.environment, said)

    def run(self, words: list[str] = WORDS) -> tuple[int, str]:
        """Exit code and everything said."""
        self.start(words)
        return self.forks.ended(), self.said

    def run_to_marks(self) -> list[float]:
        """Run undisturbed; when each step began, in seconds, and when all was done."""
        self.start()
        began, marks = time.monotonic(), [0.0]
        while f"{MARK}score" not in self.said:
            time.sleep(0.02)
            marks += [time.monotonic() - began] * (self.said.count(MARK) + 1 - len(marks))
        assert self.forks.ended() == 0, self.said
        return [*marks, time.monotonic() - began]

    def run_and_kill(self, mark: int, seconds: float) -> str:
        """Kill it so long after this step began; the step it was at, or "" where it had ended before."""
        group = self.start()
        while self.said.count(MARK) < mark and not has_ended(group):
            time.sleep(0.01)
        time.sleep(seconds)
        os.killpg(group, signal.SIGKILL)
        code = self.forks.ended()
        return (["begin", *self.said.split(MARK)[1:]][-1].split() or ["begin"])[0] if code < 0 else ""

    @property
    def said(self) -> str:
        """By the last job."""
        last = max(self._all_said.iterdir(), key=lambda path: int(path.stem))
        return last.read_text()

    def runs(self, condition: str = "") -> list:
        return list(self.client.search_runs(["0"], condition, max_results=1000))

    @property
    def results(self) -> dict:
        """Everything that a main comes to, by name; equal mains have equal ones."""
        found: dict = {}
        for run in self.runs("attributes.status = 'FINISHED'"):
            tags, place = run.data.tags, Path(run.info.artifact_uri)
            name = f"{tags['stage']} {tags.get('way', '')} {run.info.run_name}"
            figures = {key: value for key, value in run.data.metrics.items() if key.startswith(JUDGED)}
            if tags["stage"] in ("main", "score"):  # they may be killed when their run has ended
                assert found.get(name, figures) == figures
            else:
                assert name not in found, f"two finished runs are {name}"
            found[name] = figures
            for file in sorted(place.rglob("*.safetensors")):
                found[f"{name} {file.name}"] = load_file(file)
            for file in sorted(place.glob("predictions.csv")):
                found[f"{name} {file.name}"] = file.read_bytes()
        found["scores"] = pd.read_csv(self.path / "scores.csv").drop(columns="model_version").to_csv()
        return found

    def check(self) -> None:
        """Store, registry, cache and temporary folder are as a main leaves them that nobody disturbed."""
        statuses = {run.info.status for run in self.runs()}
        assert "RUNNING" not in statuses
        assert statuses <= {"FINISHED", "KILLED", "FAILED"}
        registered = self.client.get_registered_model(NAME)
        versions = self.client.search_model_versions(f"name = '{NAME}'")
        assert [version.version for version in versions] == [1], "a version for each attempt"
        for version in versions:
            (file,) = (self.path / "mlruns").rglob(
                f"{version.source.removeprefix('models:/')}/artifacts/artifacts/*.onnx"
            )
            assert hashlib.sha256(file.read_bytes()).hexdigest() == version.tags["onnx_sha256"]
            assert {"evaluation", "classifier", "decided_in", "decision"} <= version.tags.keys()
            Classifier.load(file)
        assert {alias: int(number) for alias, number in registered.aliases.items()} == {"champion": 1, "challenger": 1}
        assert not list((self.path / "home").rglob(".partial*"))
        assert not [path for path in (self.path / "home" / "unfinished").iterdir() if path.suffix != ".lock"]
        assert not list((self.path / "home" / "running").iterdir())
        assert not [path.name for kind in ("*.parts", ".scores*") for path in self.path.glob(kind)]
        assert "Traceback" not in self.said

    @property
    def kept(self) -> list[str]:
        """What there is in the cache, by name, without the key, which depends on the folder."""
        names = [path.name for path in (self.path / "home").iterdir() if path.suffix != ".lock"]
        return sorted(re.sub(r"cache-\d+-[0-9a-f]{16}", "cache", name) for name in names)


JUDGED = ("test/", "control/", "train/loss", "validation/", "probe/", "decision/", "parity/", "saliency/", "accepted/")


def different(ours: dict, theirs: dict) -> list[str]:
    """Names of results that two mains do not have, or have otherwise."""
    return [name for name in sorted(ours.keys() | theirs.keys()) if not _same(ours.get(name), theirs.get(name))]


def _same(one: object, other: object) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
    return one == other
