"""Entry points forked from a process that has loaded the libraries, which takes longer than most of them do."""

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

FIT_STEPS = 20  # to tell what is no brain MRI; in full it takes a minute, and tests of entry points ask for little
RELEASED = "RELEASED_WEIGHTS"  # in a job's environment the folder of released weights that aren't the package's


class Forks:
    """Where jobs are forked from, one after another; see forked.py."""

    def __init__(self) -> None:
        words = [sys.executable, Path(__file__).with_name("forked.py")]
        own = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=own)
        atexit.register(self._close)
        assert self._answer() == {"loaded": True}

    def _answer(self) -> dict:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def _ask(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def _close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()

    def start(self, words: list[str], folder: Path, environment: dict[str, str], said: Path) -> int:
        """The process group of a job, `sslbt WORDS`, that begins now; what it says goes to a file."""
        self._ask(json.dumps({"words": words, "folder": str(folder), "environment": environment, "said": str(said)}))
        return self._answer()["group"]

    def ended(self) -> int:
        """The exit code of the job, when it has one."""
        assert "ended" in self._answer()
        self._ask("")
        return self._answer()["code"]


_idle: list[Forks] = []


def take() -> Forks:
    """One that nobody uses; to be given back."""
    return _idle.pop() if _idle else Forks()


give_back = _idle.append


class Job:
    """`sslbt WORDS`, begun; what tests ask of a `subprocess.Popen`, whose group it leads."""

    def __init__(self, words: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.returncode: int | None = None
        self._forks = take()
        with tempfile.TemporaryDirectory() as place:
            said = Path(place, "said")
            os.mkfifo(said)
            self.pid = self._forks.start(words, folder, environment, said)
            self.stdout = said.open()

    def poll(self) -> int | None:
        if self.returncode is None and has_ended(self.pid):
            self._end()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """What it has yet to say, until it ends; pytest's own time limit ends it otherwise."""
        try:
            said = self.stdout.read()
        except BaseException:
            os.killpg(self.pid, signal.SIGKILL)
            raise
        finally:
            self._end()
        return said, None

    def _end(self) -> None:
        if self.returncode is None:
            self.returncode = self._forks.ended()
            give_back(self._forks)


def has_ended(process: int) -> bool:
    """And waits for its parent to ask how."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
