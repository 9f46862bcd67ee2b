"""Processes wait for each other, say for what, and never for one that is gone."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sslbt import waiting

HOLDER = """
import sys, time
from pathlib import Path
from sslbt.waiting import alone
with alone(Path(sys.argv[1]), "to see"):
    print("has it", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "lock"


@pytest.fixture
def holder(lock: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", HOLDER, lock], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "has it\n"
        yield process
        process.kill()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "SILENT", 0.2)
    monkeypatch.setattr(waiting, "QUIET", 0.3)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_waiter_says_for_what_and_is_next_when_the_holder_dies(
    holder: subprocess.Popen[str], lock: Path, stopped: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if stopped:
        holder.send_signal(signal.SIGSTOP)
    died = []

    def kill() -> None:
        time.sleep(1.5)
        died.append(time.monotonic())
        holder.kill()

    threading.Thread(target=kill).start()
    with waiting.alone(lock, "to finish the soup"):
        entered = time.monotonic()
    assert 0 <= entered - died[0] < 5  # a twentieth of a second, on a machine with nothing else to do
    said = capsys.readouterr().err.splitlines()
    assert len(said) > 2  # again and again
    assert set(said) == {
        f"waiting for another process to finish the soup; if it hangs, end it (`lsof {lock}` names it)"
    }


def test_who_need_not_wait_says_nothing_and_the_next_may_after_an_error(
    lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="burnt"), waiting.alone(lock, "to finish the soup"):
            raise ValueError("burnt")
    assert capsys.readouterr().err == ""
