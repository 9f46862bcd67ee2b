"""Whenever `main` is killed, the same command goes on and comes to what it would have come to."""

import bisect
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from jobs import Folder, Server, different
from size import times

SEED = random.randrange(2**32)
JOBS, KILLS = times(1, 100), times(2, 1)  # of each job
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="jobs are forked")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def undisturbed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, list[float]]:
    """A main that nobody killed, and when its steps began."""
    folder = Folder(tmp_path_factory.mktemp("undisturbed"), server)
    marks = folder.run_to_marks()
    folder.check()
    return folder, marks


def moments(marks: list[float], number: int, chance: random.Random) -> list[tuple[int, float]]:
    """So many, evenly drawn from the whole way: the step, by its number, and seconds after it began."""
    drawn = sorted(chance.uniform(0, marks[-1]) for _ in range(number))
    steps = [bisect.bisect(marks, moment) - 1 for moment in drawn]
    return [(step, moment - marks[step]) for step, moment in zip(steps, drawn, strict=True)]


@needs_fork
@pytest.mark.parametrize("job", range(JOBS))
def test_killed_at_any_moment_the_same_command_comes_to_the_same(
    job: int, undisturbed: tuple[Folder, list[float]], server: Server, tmp_path: Path
) -> None:
    whole, marks = undisturbed
    folder, seed = Folder(tmp_path / "killed", server), f"{SEED}/{job}"
    hit = [folder.run_and_kill(*moment) for moment in moments(marks, KILLS, random.Random(seed))]
    print(f"seed {seed}: killed at {hit}")
    code, said = folder.run()
    assert code == 0, said
    folder.check()
    assert folder.kept == whole.kept
    assert different(folder.results, whole.results) == []
