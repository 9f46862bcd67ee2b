"""Thousands of mutated inputs of every format, and of every body the service takes, each in the process that reads it.

What may come of one is a picture or a sentence, in a service an answer that is no 5xx. What may not: another exception,
a crash of native code, more than two seconds of a processor (60 s of the clock), more than 1 GiB (the largest PNG that
is read, 8000 x 8000 with four channels, takes 0.7), a file written anywhere else than where it belongs.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz_seeds import SEEDS, seeds
from size import FULL, times

pytest.importorskip("atheris", reason="libFuzzer for Python is there for Linux only")

HERE = Path(__file__).parent
RUNS = times(100, 10_000)
SEED = 9
Fuzz = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def fuzz(tmp_path: Path) -> Fuzz:
    """Fuzz a format; nothing may appear but in the two folders made for it."""

    def fuzz(form: str, runs: int = RUNS) -> subprocess.CompletedProcess:
        for name in ("own", "seeds", "found"):
            (tmp_path / name).mkdir()
        for number, data in enumerate(seeds(form)):
            (tmp_path / "seeds" / f"{number:02}").write_bytes(data)
        most = max(path.stat().st_size for path in (tmp_path / "seeds").iterdir())
        options = [f"-runs={runs + len(seeds(form)) + 1}", f"-seed={SEED}", f"-max_len={2 * most}", "-timeout=60"]
        options += ["-rss_limit_mb=6000", f"-artifact_prefix={tmp_path}/found/", f"-guided={int(FULL)}"]
        paths = os.pathsep.join([str(HERE.parents[1]), str(HERE), str(HERE.parent / "data")])
        return subprocess.run(
            [sys.executable, HERE / "fuzzing.py", form, *options, tmp_path / "found", tmp_path / "seeds"],
            cwd=tmp_path / "own",
            env=os.environ | {"PYTHONPATH": paths, "SSLBT_HOME": str(tmp_path / "own"), "HOME": str(tmp_path / "own")},
            capture_output=True,
            text=True,
            errors="replace",
        )

    return fuzz


@pytest.mark.parametrize("form", SEEDS)
def test_no_input_does_harm(form: str, fuzz: Fuzz, tmp_path: Path) -> None:
    before = in_the_project()
    ended = fuzz(form)
    kept = [path for path in tmp_path.rglob("*-*") if path.name.startswith(("crash", "oom", "timeout"))]
    assert ended.returncode == 0, f"seed {SEED}, the input is {kept}\n{ended.stderr[-4000:]}"
    done = re.search(r"Done (\d+) runs", ended.stderr)
    assert done
    assert int(done[1]) >= RUNS
    assert {path.name for path in tmp_path.iterdir()} == {"own", "seeds", "found"}
    assert {path.name for path in (tmp_path / "own").rglob("*")} <= {"a.zip", "a.parquet"}
    assert in_the_project() == before


def in_the_project() -> set[str]:
    """What lies there, but for the notes of Hypothesis, that tests in other processes may begin meanwhile."""
    return {path.name for path in HERE.parents[1].iterdir()} - {".hypothesis"}


@pytest.mark.parametrize("what", ["raises", "crashes", "hangs", "grows", "writes"])
def test_harm_is_noticed(what: str, fuzz: Fuzz, tmp_path: Path) -> None:
    ended = fuzz(f"harm_{what}", runs=1)
    assert ended.returncode != 0
    assert [path for path in (tmp_path / "found").iterdir() if path.name.startswith("crash-")], ended.stderr[-2000:]
