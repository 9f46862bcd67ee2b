"""Whenever `main` is killed, and wherever it can't write, the same command comes to what it would have come to."""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from forks import Forks, give_back, take
from jobs import MARK, Folder, different
from size import FULL, times

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="jobs are forked")
needs_mount = pytest.mark.skipif(
    not (hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("mount")), reason="only root may mount a disk"
)
SEED = random.randrange(2**32)
JOBS, KILLS = times(1, 30), times(1, 4)  # of each job, one after another; in a few it has ended before
ROOM = 3_000_000  # bytes more each time
GOES_ON = "the same command continues with the steps still to do"


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    """Where jobs are forked from."""
    taken = take()
    yield taken
    give_back(taken)


@pytest.fixture(scope="module")
def undisturbed(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, list[float]]:
    """A finished main, and when its steps began."""
    folder = Folder(tmp_path_factory.mktemp("undisturbed"), forks)
    marks = folder.run_to_marks()
    folder.check()
    return folder, marks


def moments(marks: list[float], number: int, chance: random.Random) -> list[tuple[int, float]]:
    """So many, in order: a step, by its number, each as likely, and seconds after it began, evenly drawn."""
    steps = sorted(chance.choices(range(len(marks) - 1), k=number))
    return [(step, chance.uniform(0, marks[step + 1] - marks[step])) for step in steps]


@pytest.mark.parametrize("job", range(JOBS))
def test_killed_at_any_moment_the_same_command_comes_to_the_same(
    job: int, forks: Forks, undisturbed: tuple[Folder, list[float]], tmp_path: Path
) -> None:
    whole, marks = undisturbed
    folder, seed = Folder(tmp_path / "killed", forks), f"{SEED}/{job}"
    hit = [folder.run_and_kill(*moment) for moment in moments(marks, KILLS, random.Random(seed))]
    print(f"seed {seed}: killed at {hit}")
    code, said = folder.run()
    assert code == 0, said
    folder.check()
    assert folder.kept == whole.kept
    assert different(folder.results, whole.results) == []


def mount(*words: object) -> None:
    done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Where a disk may be mounted, which is taken away again."""
    place = tmp_path / "disk"
    place.mkdir()
    yield place
    if os.path.ismount(place):
        subprocess.run(["umount", "--lazy", place], check=True)  # this process has the store open


@contextmanager
def read_only(place: Path) -> Iterator[None]:
    """Nobody writes there meanwhile, not even root."""
    mount("--bind", place, place)
    try:
        mount("-o", "remount,ro,bind", place)
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def one_sentence(code: int, said: str, place: Path) -> str:
    """Check what a main ends with that can't write; the step it was at."""
    assert code == 2, said
    assert "Traceback" not in said
    told = [line for line in said.splitlines() if line.startswith("sslbt: ")]
    assert str(place) in told[0], said
    assert "free space" in told[0]
    assert told[1:] in ([], [f"sslbt: {step_of(said)} failed, see above; {GOES_ON}"])
    return step_of(said)


def step_of(said: str) -> str:
    return (["begin", *said.split(MARK)[1:]][-1].split() or ["begin"])[0].rstrip(":")


@needs_mount
def test_a_disk_that_grows_until_it_suffices(disk: Path, forks: Forks, undisturbed: tuple[Folder, list[float]]) -> None:
    """In the trimmed test it never does: until then every attempt is as good."""
    size = 400_000
    mount("-t", "tmpfs", "-o", f"size={size}", "none", disk)
    folder, failed = Folder(disk / "job", forks), []
    while True:
        code, said = folder.run()
        if code == 0:
            break
        failed.append(one_sentence(code, said, disk))
        if not FULL and len(failed) == 2:
            return
        size += ROOM
        mount("-o", f"remount,size={size}", disk)
    assert {"begin", "prepare", "pretrain-encoder", "finetune"} <= set(failed)
    folder.check()
    whole, _ = undisturbed
    assert folder.kept == whole.kept
    assert different(folder.results, whole.results) == []


@needs_mount
def test_folders_that_cant_be_written(forks: Forks, undisturbed: tuple[Folder, list[float]], tmp_path: Path) -> None:
    """At the beginning of every step; trimmed, when all but the scores are there."""
    whole, marks = undisturbed
    if not FULL:
        locked_out(whole)
        assert whole.run()[0] == 0
        return
    folder = Folder(tmp_path / "job", forks)
    for mark in range(1, len(marks) - 1):
        folder.run_and_kill(mark, 0.0)
        locked_out(folder)
    assert folder.run()[0] == 0
    folder.check()
    assert folder.kept == whole.kept
    assert different(folder.results, whole.results) == []


def locked_out(folder: Folder) -> None:
    """The command with each place read-only in turn: a sentence, or it needed nothing there."""
    for place in (folder.path / "home", folder.path / "mlruns", folder.path):
        if place.exists():
            with read_only(place):
                code, said = folder.run()
            if code:
                one_sentence(code, said, folder.path)
            else:
                assert place != folder.path
