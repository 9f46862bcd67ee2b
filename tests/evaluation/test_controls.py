import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from sslbt.evaluation.controls import (
    INTENSITIES,
    SHUFFLES,
    _intensities,
    intensities,
    majority,
    mean_metrics,
    random_encoder,
    raw_pixels,
    shuffled_labels,
)
from sslbt.nn.encoder import Encoder


def picture(labels: np.ndarray, seed: int) -> Tensor:
    """Noise with a bright patch, whose place tells the class."""
    slices = torch.rand(len(labels), 1, 64, 64, generator=torch.Generator().manual_seed(seed)) * 0.5
    for own, label in zip(slices, labels, strict=True):
        own[:, 8:24, 8 + 16 * int(label) : 24 + 16 * int(label)] += 0.5
    return slices


LABELS = np.arange(30) % 3
TEST = np.arange(60) % 3


def test_majority_is_the_shares_of_the_labels() -> None:
    answers = majority(np.array([1, 1, 2, 1]), count=5, classes=3)
    assert answers.tolist() == [[0, 0.75, 0.25]] * 5


def test_raw_pixels_learn_what_is_easy() -> None:
    answers = raw_pixels(picture(LABELS, 0), LABELS, picture(TEST, 1), classes=3)
    assert answers.shape == (60, 3)
    assert answers.sum(axis=1) == pytest.approx(1)
    assert (answers.argmax(axis=1) == TEST).mean() > 0.95


def test_raw_pixels_find_nothing_in_noise() -> None:
    shuffled = np.random.default_rng(0).permutation(LABELS)
    answers = raw_pixels(picture(0 * LABELS, 0), shuffled, picture(0 * TEST, 1), classes=3)
    assert (answers.argmax(axis=1) == TEST).mean() < 0.55


def test_a_class_without_labels_gets_no_probability() -> None:
    labels = np.where(LABELS == 1, 2, LABELS)
    inputs = picture(labels, 0), labels, picture(TEST, 1), 4
    for answers in (raw_pixels(*inputs), intensities(*inputs), random_encoder(*inputs, width=4, seed=0)):
        assert answers.shape == (60, 4)
        assert not answers[:, [1, 3]].any()
        assert answers.sum(axis=1) == pytest.approx(1)


def test_the_random_encoder_follows_from_its_seed_and_beats_guessing() -> None:
    inputs = picture(LABELS, 0), LABELS, picture(TEST, 1), 3
    first, again, other = (random_encoder(*inputs, width=4, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.sum(axis=1) == pytest.approx(1)
    flat = [LABELS * 0.2, TEST * 0.2]  # brightness tells the class
    bright = [torch.rand(len(own), 1, 32, 32) * 0.1 + torch.tensor(own)[:, None, None, None] for own in flat]
    answers = random_encoder(bright[0].float(), LABELS, bright[1].float(), 3, width=8, seed=0)
    assert (answers.argmax(axis=1) == TEST).mean() > 0.8


def test_intensities_by_their_definitions() -> None:
    slices = torch.rand(3, 1, 20, 20, generator=torch.Generator().manual_seed(0)) ** 2
    found = _intensities(slices)
    assert found.shape == (3, len(INTENSITIES)) == (3, 10)
    for own, grey in zip(found, slices.flatten(1).double().numpy(), strict=True):
        shares = np.array([((low <= grey) & (grey < low + 1 / 32)).mean() for low in np.arange(32) / 32])
        in_bits = -sum(share * np.log2(share) for share in shares if share)
        ordered = np.sort(grey)
        expected = [grey.mean(), grey.std(), stats.skew(grey), stats.kurtosis(grey)]
        expected += [float(np.interp(q * 399, np.arange(400), ordered)) for q in (0.25, 0.5, 0.75, 0.9)]
        assert own == pytest.approx([*expected, in_bits, (grey > 0.5).mean()], rel=1e-6)


def test_a_slice_of_one_grey_has_intensities() -> None:
    assert _intensities(torch.full((1, 1, 20, 20), 0.5))[0] == pytest.approx([0.5, 0, 0, -3, *[0.5] * 4, 0, 0])


def test_intensities_know_how_bright_a_slice_is_and_not_where() -> None:
    where = intensities(picture(LABELS, 0), LABELS, picture(TEST, 1), classes=3)
    assert (where.argmax(axis=1) == TEST).mean() < 0.6
    shine = [
        torch.rand(len(own), 1, 32, 32) * 0.1 + torch.tensor(own * 0.2)[:, None, None, None] for own in (LABELS, TEST)
    ]
    how = intensities(shine[0].float(), LABELS, shine[1].float(), classes=3)
    assert (how.argmax(axis=1) == TEST).mean() > 0.95


def test_shuffled_labels_fall_to_chance_where_true_ones_do_not() -> None:
    shine = [
        torch.rand(len(own), 1, 32, 32) * 0.1 + torch.tensor(own * 0.2)[:, None, None, None] for own in (LABELS, TEST)
    ]
    labelled, test = (slices.float() for slices in shine)
    assert (random_encoder(labelled, LABELS, test, 3, width=8, seed=0).argmax(axis=1) == TEST).mean() > 0.8
    torch.manual_seed(0)
    encoder = Encoder(8)
    answers = shuffled_labels(encoder, labelled, LABELS, test, 3, seed=0)
    assert answers.shape == (SHUFFLES, 60, 3)
    assert np.array_equal(answers, shuffled_labels(encoder, labelled, LABELS, test, 3, seed=0))
    right = (answers.argmax(axis=2) == TEST).mean(axis=1)
    assert len(np.unique(right)) > 3
    assert right.mean() == pytest.approx(1 / 3, abs=4 * right.std() / np.sqrt(SHUFFLES))


def test_mean_metrics() -> None:
    assert mean_metrics([{"accuracy": 0.2, "ece": 0.1}, {"accuracy": 0.4, "ece": 0.3}]) == pytest.approx(
        {"accuracy": 0.3, "ece": 0.2}
    )
