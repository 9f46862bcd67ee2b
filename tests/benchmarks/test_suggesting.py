"""What suggested slices are worth: figures by hand, and the command from end to end on phantoms."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from sslbt.data.cache import prepare
from sslbt.data.source import Source
from sslbt.data.splits import Split, make_split
from sslbt.nn.encoder import Encoder
from sslbt.training.checkpoint import save_encoder


@pytest.fixture(autouse=True)
def in_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")


@pytest.fixture
def split() -> Split:
    """Twelve families of two classes, three slices each; two of each class are tested."""
    family = np.repeat([f"F{i:02}" for i in range(12)], 3)
    label = np.repeat(np.arange(12) % 2, 3)
    part = np.where(np.arange(36) < 24, "train", "test")
    columns = {"file": np.arange(36).astype(str), "patient": family, "family": family, "label": label, "part": part}
    return Split("patient", pd.DataFrame(columns))


def test_figures_are_those_of_scikit_learn(split: Split) -> None:
    from suggesting import judged

    label = split.table.label.to_numpy()
    seen = np.stack([label, 1 - label], axis=1) * 4.0
    wrong = np.array([24, 25, 27])  # two of three slices of a family of class 0, one of a family of class 1
    seen[wrong] = seen[wrong][:, ::-1]
    accuracy, balanced, patients = judged(split, seen, np.array([0, 3]), "test")
    rows = split.rows("test")
    predicted = np.where(np.isin(rows, wrong), 1 - label[rows], label[rows])
    assert accuracy == pytest.approx(9 / 12)
    assert balanced == pytest.approx(balanced_accuracy_score(label[rows], predicted))
    assert patients == pytest.approx((1 / 2 + 1) / 2)  # of one patient most slices mislead


@pytest.mark.parametrize("way", ["random", "balanced by class", "suggested"])
def test_every_way_chooses_so_many_training_slices(split: Split, way: str) -> None:
    from suggesting import choose

    seen = np.random.default_rng(0).normal(size=(36, 4))
    chosen = choose(way, split, seen, 6, 0, ("a", "b"))
    assert len(set(chosen)) == 6
    assert set(chosen) <= set(split.rows("train"))
    if way == "balanced by class":
        assert np.bincount(split.table.label.to_numpy()[chosen]).tolist() == [3, 3]


def test_the_command_prints_each_way_on_both_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import suggesting

    monkeypatch.setenv("SSLBT_HOME", str(tmp_path / "home"))
    cache = prepare(Source("sample:24"))
    torch.manual_seed(0)
    about = {"size": 32, "way": "contrastive", "split": "patient:1", "seen": []}
    about["split_hash"] = make_split(cache.table, "patient:1", cache.classes).hash
    save_encoder(tmp_path / "encoder.safetensors", Encoder(4), about)
    words = ["suggesting", "sample:24", str(tmp_path / "encoder.safetensors"), "--draws", "2", "--counts", "6"]
    monkeypatch.setattr("sys.argv", words)
    suggesting.main()
    said = capsys.readouterr().out
    for way in suggesting.WAYS:
        assert said.count(f" {way} ") >= 2
    assert "patient:1" in said
