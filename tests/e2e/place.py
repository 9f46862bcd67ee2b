"""Processes run as a user would."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from forks import Job
from mlflow import MlflowClient

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Place:
    """A folder with its own tracking store and cache, and processes run in it as a user would."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    MLFLOW_RUN = ("mlflow", "run", ROOT, "--env-manager", "local")

    @property
    def environment(self) -> dict[str, str]:
        own = {
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder}/mlflow.db",
            "SSLBT_HOME": str(self.folder / "home"),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        }
        return (
            {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_RUN")} | own | self.variables
        )

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.folder}/mlflow.db")

    def start(self, *words: object) -> subprocess.Popen[str] | Job:
        """A process in its own group, its output in one pipe.

        `sslbt` begins where its libraries are loaded, but for `serve`, which needs few of them.
        """
        if words[0] == "sslbt" and words[1] != "serve":
            return Job([str(word) for word in words[1:]], self.folder, self.environment)
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
        assert process.returncode is not None
        return process.returncode, said

    def succeed(self, *words: object) -> str:
        """Everything said by what must not fail."""
        code, said = self.run(*words)
        assert code == 0, said
        return said

    def stop(self, process: subprocess.Popen[str] | Job, number: int = signal.SIGKILL) -> str:
        """Signal a process and all it started; what it says to that."""
        os.killpg(process.pid, number)
        return process.communicate(timeout=120)[0]

    def mlflow_run(self, *words: object) -> tuple[int, str]:
        return self.run(*self.MLFLOW_RUN, *words)

    def runs(self, condition: str = "") -> list:
        return list(self.client.search_runs(["0"], condition, max_results=1000))
