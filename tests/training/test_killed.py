"""Real processes, killed by SIGKILL."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy import different, left

from sslbt.training import checkpoint

HERE = Path(__file__).parent


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script starts its trainings by fork")
def test_a_process_killed_at_any_time_continues_to_the_same_weights_and_leaves_nothing_else(tmp_path: Path) -> None:
    one_thread = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, HERE / "killed.py", tmp_path, "0"]
    done = subprocess.run(command, env=one_thread, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    of = {kind: [line for line in said if line.startswith(kind)] for kind in ("at a moment", "at random", "again")}
    assert len(of["at a moment"]) == 12
    assert all(": killed" in line for line in [*of["at a moment"], *of["at random"]]), done.stdout
    assert len(of["at random"]) >= 12
    assert set(of["again"]) == {"again: status 0"}
    assert sum(".partial-" in line for line in said) > 8  # so many were killed in the middle of a checkpoint

    whole, best = left(tmp_path / "whole"), checkpoint.load(tmp_path / "whole" / "best.safetensors")
    for folder in tmp_path.iterdir():
        assert sorted(os.listdir(folder)) == ["best.safetensors", "last.safetensors"], folder
        assert different(left(folder), whole) == set(), folder
        found = checkpoint.load(folder / "best.safetensors")
        assert different(found[0], best[0]) == set(), folder
        assert found[1] == best[1] == {"epoch": 2}
    assert len(list(tmp_path.iterdir())) == 14
