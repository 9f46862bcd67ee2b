"""How benchmarks end that can't go on, and what the one of drift does with little data."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sslbt.errors import UserError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def in_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


@pytest.mark.parametrize(
    ("error", "said"), [(UserError("data=x: missing"), "data=x: missing"), (KeyboardInterrupt(), "interrupted")]
)
def test_what_the_user_did_ends_it_with_a_sentence(error: BaseException, said: str) -> None:
    from ending import in_a_sentence

    with pytest.raises(SystemExit, match=said), in_a_sentence():
        raise error


def test_what_the_code_did_stays_what_it_is() -> None:
    from ending import in_a_sentence

    with pytest.raises(ZeroDivisionError), in_a_sentence():
        raise ZeroDivisionError


def test_a_benchmark_without_its_data_says_one_line(tmp_path: Path) -> None:
    words = [sys.executable, str(BENCHMARKS / "prepare.py"), str(tmp_path / "nowhere")]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "nowhere" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_windows_of_what_the_data_lack_are_empty() -> None:
    """Four families of one class, all axial: no coronal window, and no five patients with six slices each."""
    from drift import AS_THEY_ARE, windows

    family = np.repeat([f"F{i}" for i in range(4)], 10)
    table = pd.DataFrame({"family": family, "class": "glioma", "plane": "axial"})
    found = windows(table, 25, [AS_THEY_ARE], np.random.default_rng(0))
    sizes = {kind: len(rows) for kind, (_, rows) in found.items()}
    assert sizes == {
        AS_THEY_ARE: 25,
        "5 patients, as many slices of each": 0,
        "glioma only": 25,
        "axial only": 25,
        "coronal only": 0,
        "sagittal only": 0,
    }
