import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from sslbt.data.cache import Cache
from sslbt.data.splits import Split
from sslbt.evaluation.probe import Probe, effective_rank, spread
from sslbt.nn.encoder import Encoder
from sslbt.steps.common import MOST_WATCHED, validation


class Told(nn.Module):
    """An encoder whose features are known beforehand: slice i holds the number i."""

    def __init__(self, features: np.ndarray) -> None:
        super().__init__()
        self.features = nn.Parameter(torch.from_numpy(features).float())

    def pooled(self, slices: Tensor) -> Tensor:
        return self.features[slices[:, 0, 0, 0].long()]


def probe(labels: np.ndarray, families: np.ndarray, epochs: int = 1) -> Probe:
    return Probe(torch.arange(len(labels)).float().reshape(-1, 1, 1, 1), labels, families, epochs)


def told(features: np.ndarray) -> SimpleNamespace:
    return SimpleNamespace(encoder=Told(features))


def watch(features: np.ndarray, labels: np.ndarray, families: np.ndarray) -> dict[str, float]:
    return probe(labels, families)(0, told(features))


def by_singular_values(*values: float) -> np.ndarray:
    """Features without a mean whose singular values are these."""
    half = np.zeros((len(values), 6))
    half[range(len(values)), range(len(values))] = values
    return np.concatenate([half, -half]) / math.sqrt(2) + 5


@pytest.mark.parametrize(
    ("values", "rank"),
    [
        ((1, 1, 1, 1), 4),
        ((7,), 1),
        ((3, 1), math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))),
        ((2, 1, 1), math.exp(0.5 * math.log(2) + 0.5 * math.log(4))),
        ((1, 1e-9), 1),
    ],
)
def test_effective_rank_by_hand(values: tuple[float, ...], rank: float) -> None:
    assert effective_rank(by_singular_values(*values)) == pytest.approx(rank, rel=1e-4)


@pytest.mark.filterwarnings("error")
def test_a_collapsed_encoder_has_rank_one_and_no_spread() -> None:
    assert effective_rank(np.full((50, 8), 3.0)) == 1
    assert spread(np.full((50, 8), 3.0)) == pytest.approx(0, abs=1e-7)
    assert spread(np.zeros((50, 8))) == 0


def test_spread_by_hand() -> None:
    # n slices along n axes: a channel is 1 once and 0 else, its variance (n - 1) / n²; n channels of that.
    for count in (2, 3, 10):
        assert spread(7 * np.eye(count)) == pytest.approx(math.sqrt((count - 1) / count))
    assert spread(np.array([[1.0, 0], [-5, 0]])) == pytest.approx(1)  # opposite: as far as it goes
    assert spread(np.array([[3.0, 4], [6, 8]])) == pytest.approx(0)  # of one direction: length doesn't count


def test_spread_is_the_root_of_one_less_the_squared_mean_direction() -> None:
    features = np.random.default_rng(0).normal(0.5, 1, (300, 16))
    mean = sum(row / math.sqrt(sum(row**2)) for row in features) / 300
    assert spread(features) == pytest.approx(math.sqrt(1 - sum(mean**2)))


FAMILIES = np.repeat([f"P{number:02}" for number in range(40)], 5)
OF_FAMILY = np.random.default_rng(0).permutation(np.arange(40) % 2)
LABELS = np.repeat(OF_FAMILY, 5)


def test_who_the_patient_is_does_not_help() -> None:
    # Every slice shows whose it is and nothing else; within a family that would tell the class.
    judged = []
    for seed in range(10):
        generator = np.random.default_rng(seed)
        identity = np.repeat(generator.normal(0, 1, (40, 16)), 5, axis=0) + generator.normal(0, 0.01, (200, 16))
        judged.append(watch(identity, LABELS, FAMILIES))
    for name in ("probe/linear_balanced_accuracy", "probe/knn_balanced_accuracy", "probe/score"):
        assert np.mean([found[name] for found in judged]) == pytest.approx(0.5, abs=0.1)
    leaking = watch(identity, LABELS, np.array([f"S{number}" for number in range(200)]))  # each slice its own family
    assert leaking["probe/linear_balanced_accuracy"] > 0.8  # so the test above could have failed


def test_what_shows_the_class_is_read() -> None:
    generator = np.random.default_rng(0)
    telling = generator.normal(0, 1, (200, 16))
    telling[:, 0] += 6 * LABELS - 3
    found = watch(telling, LABELS, FAMILIES)
    assert found["probe/linear_balanced_accuracy"] > 0.95
    assert found["probe/knn_balanced_accuracy"] > 0.9
    assert found["probe/rank"] == pytest.approx(effective_rank(telling), rel=1e-3)
    assert found["probe/spread"] == pytest.approx(spread(telling), rel=1e-3)


def test_the_score_is_the_mean_of_both_accuracies() -> None:
    generator = np.random.default_rng(1)
    telling = generator.normal(0, 1, (200, 16)) + LABELS[:, None] * 0.5
    found = watch(telling, LABELS, FAMILIES)
    both = found["probe/knn_balanced_accuracy"], found["probe/linear_balanced_accuracy"]
    assert both[0] != both[1]
    assert found["probe/score"] == pytest.approx(sum(both) / 2)


def test_the_accuracy_of_neighbours_is_that_of_a_loop_over_slices() -> None:
    features = np.random.default_rng(2).normal(0, 1, (200, 8)) + LABELS[:, None] * 0.8
    number = {name: place for place, name in enumerate(sorted(set(FAMILIES)))}
    group = np.array([number[name] % 5 for name in FAMILIES])
    right: dict[int, list[bool]] = {0: [], 1: []}
    for row in range(200):
        others = [other for other in range(200) if group[other] != group[row]]
        cosine = {
            o: features[row] @ features[o] / np.linalg.norm(features[row]) / np.linalg.norm(features[o]) for o in others
        }
        nearest = sorted(others, key=cosine.__getitem__)[-20:]
        votes = sum(LABELS[nearest])
        right[LABELS[row]].append((votes > 10) == LABELS[row])  # of a tie the lower class
    wanted = (np.mean(right[0]) + np.mean(right[1])) / 2
    assert watch(features, LABELS, FAMILIES)["probe/knn_balanced_accuracy"] == pytest.approx(wanted)


@pytest.mark.parametrize(("epochs", "most"), [(1, 1), (5, 5), (12, 12), (13, 12), (40, 12), (1000, 12)])
def test_it_watches_about_a_dozen_epochs_evenly_and_always_the_last(epochs: int, most: int) -> None:
    watching, model = probe(LABELS[:5], FAMILIES[:5], epochs), told(np.random.default_rng(0).normal(size=(5, 4)))
    watched = [epoch for epoch in range(epochs) if watching(epoch, model)]
    assert len(watched) == most
    assert (watched[0], watched[-1]) == (0, epochs - 1)
    assert np.ptp(np.diff(watched)) <= 1 if most > 1 else True


def test_a_collapse_is_warned_of_once_and_named(capsys: pytest.CaptureFixture) -> None:
    watching = probe(LABELS, FAMILIES, epochs=5)
    generator = np.random.default_rng(0)
    apart = generator.normal(0, 1, (200, 16))
    watching(0, told(apart))
    assert capsys.readouterr().err == ""
    for epoch in range(1, 4):
        found = watching(epoch, told(1 + 0.001 * apart))
        assert 0 < found["probe/spread"] < 0.01
    said = capsys.readouterr().err
    assert said.count("WARNING: the features have collapsed") == said.count("\n") == 1
    assert "lower learning_rate" in said


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rows", [slice(0, 5), slice(0, 20), np.flatnonzero(LABELS == 1)], ids=["one", "few", "class"])
def test_too_little_to_judge_by_leaves_no_score(rows: slice | np.ndarray) -> None:
    features = np.random.default_rng(0).normal(size=(200, 4))[rows]
    assert set(watch(features, LABELS[rows], FAMILIES[rows])) == {"probe/rank", "probe/spread"}


def made(parts: list[str], labels: np.ndarray) -> tuple[Cache, Split]:
    count = len(parts)
    pixels = np.random.default_rng(0).integers(0, 256, (count, 256, 256), dtype=np.uint8)
    table = pd.DataFrame({"file": [f"{row}.mat" for row in range(count)], "label": labels, "part": parts})
    table["family"] = table["patient"] = [f"P{row // 2:03}" for row in range(count)]
    cache = Cache(pixels, table, *[pd.DataFrame()] * 2, "", True, ("a", "b"), Path("nowhere"))
    return cache, Split("patient", table)


def test_neither_slices_nor_labels_of_training_or_test_are_read() -> None:
    torch.manual_seed(0)
    model, parts = (
        SimpleNamespace(encoder=Encoder(8)),
        ["train", "train", "validation", "validation", "test", "test"] * 20,
    )
    labels = np.random.default_rng(0).permutation(np.arange(60) % 2).repeat(2)
    cfg = SimpleNamespace(size=32, epochs=1)
    cache, split = made(parts, labels)
    found = validation(cache, split, cfg).probe(0, model)
    inside = np.array(parts) == "validation"
    others, other_split = made(parts, np.where(inside, labels, 1 - labels))
    others.pixels[~inside] = 0
    assert validation(others, other_split, cfg).probe(0, model) == found
    assert "probe/score" in found
    changed, changed_split = made(parts, np.where(inside, 1 - labels * (np.arange(120) % 4 == 2), labels))
    assert validation(changed, changed_split, cfg).probe(0, model) != found  # so the test could have failed


def test_of_very_many_slices_some_are_watched_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_WATCHED >= 1000
    monkeypatch.setattr("sslbt.steps.common.MOST_WATCHED", 5)
    cache, split = made(["validation"] * 21 + ["train"] * 9, np.arange(30) % 2)
    watched = validation(cache, split, SimpleNamespace(size=32, epochs=1))
    assert list(watched.families) == ["P000", "P002", "P005", "P007", "P010"]  # rows 0, 5, 10, 15, 20
    assert watched.labels.tolist() == [0, 1, 0, 1, 0]
    torch.testing.assert_close(watched.slices, cache.load(np.array([0, 5, 10, 15, 20]), 32))
