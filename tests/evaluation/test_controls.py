import numpy as np
import pytest
import torch
from torch import Tensor

from sslbt.evaluation.controls import majority, random_encoder, raw_pixels


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
    for answers in (raw_pixels(*inputs), random_encoder(*inputs, width=4, seed=0)):
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
