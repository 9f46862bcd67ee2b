import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sslbt.evaluation.features import Probe, effective_rank, extract, logits
from sslbt.nn.encoder import Encoder
from sslbt.nn.heads import Classifier


class Told(nn.Module):
    """An encoder whose features are known beforehand: slice i holds the number i."""

    def __init__(self, features: np.ndarray) -> None:
        super().__init__()
        self.features = nn.Parameter(torch.from_numpy(features).float())

    def pooled(self, slices: Tensor) -> Tensor:
        return self.features[slices[:, 0, 0, 0].long()]


def watch(features: np.ndarray, labels: np.ndarray, families: np.ndarray, epoch: int = 0) -> dict[str, float]:
    slices = torch.arange(len(labels)).float().reshape(-1, 1, 1, 1)
    return Probe(slices, labels, families, epochs=1)(epoch, SimpleNamespace(encoder=Told(features)))


def test_features_are_those_of_each_slice_alone_in_order() -> None:
    torch.manual_seed(0)
    encoder = Encoder(4).train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    slices = torch.rand(300, 1, 16, 16)  # more than one batch
    features = extract(encoder, slices)
    assert features.shape == (300, 32)
    assert features.dtype == np.float32
    for row in (0, 127, 128, 299):
        with torch.no_grad():
            np.testing.assert_allclose(features[row], encoder.pooled(slices[row : row + 1])[0], atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_logits_are_the_models_without_dropout() -> None:
    torch.manual_seed(0)
    model = Classifier(Encoder(4), 3, dropout=0.9).train()
    slices = torch.rand(130, 1, 16, 16)
    found = logits(model, slices)
    assert found.shape == (130, 3)
    assert np.array_equal(found, logits(model, slices))
    with torch.no_grad():
        np.testing.assert_allclose(found, model.eval()(slices), atol=1e-5)


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
def test_a_collapsed_encoder_has_rank_one() -> None:
    assert effective_rank(np.full((50, 8), 3.0)) == 1


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
    for name in ("probe/linear_balanced_accuracy", "probe/knn_balanced_accuracy"):
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


def test_it_watches_every_fifth_epoch_and_the_last() -> None:
    slices = torch.arange(200).float().reshape(-1, 1, 1, 1)
    probe = Probe(slices, LABELS, FAMILIES, epochs=13, every=5)
    model = SimpleNamespace(encoder=Told(np.random.default_rng(0).normal(size=(200, 4))))
    assert [epoch for epoch in range(13) if probe(epoch, model)] == [0, 5, 10, 12]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rows", [slice(0, 5), slice(0, 20), np.flatnonzero(LABELS == 1)], ids=["one", "few", "class"])
def test_too_little_to_judge_by_leaves_the_rank_only(rows: slice | np.ndarray) -> None:
    features = np.random.default_rng(0).normal(size=(200, 4))[rows]
    assert set(watch(features, LABELS[rows], FAMILIES[rows])) == {"probe/rank"}
