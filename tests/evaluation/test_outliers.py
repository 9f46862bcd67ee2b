from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from sslbt.data.phantom import PLANES, draw, make_person, make_scanner
from sslbt.data.reading import normalise
from sslbt.data.splits import Split
from sslbt.evaluation.outliers import LENIENT, PASSING, acceptance, fit, fit_outlier, line, strangers
from sslbt.nn.outlier import Outlier


def people(seeds: range) -> tuple[np.ndarray, np.ndarray]:
    """Three slices of each phantom, and whose they are."""
    slices = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        person, scanner = make_person(seed % 3 + 1, rng), make_scanner(rng)
        slices += [normalise(draw(person, scanner, plane, 0, 128, rng)[0]) for plane in PLANES]
    return np.stack(slices), np.repeat([f"P{seed}" for seed in seeds], 3)


@pytest.fixture(scope="module")
def fitted() -> Outlier:
    return fit_outlier(people(range(34))[0], *people(range(34, 44)), steps=150)


def test_new_heads_pass_and_nothing_else_does(fitted: Outlier) -> None:
    table = acceptance(fitted, people(range(50, 80))[0]).set_index("kind")
    assert table.pictures["real slices"] == 90
    assert table.accepted["real slices"] > 0.9
    upside_down = ["slices upside down", "slices turned by 180 degrees"]
    assert table.accepted[upside_down].max() < 0.5  # what takes longest to learn
    assert table.accepted.drop(["real slices", *upside_down]).mean() < 0.05


def test_a_fit_follows_from_its_seed_and_leaves_the_worlds_chance_alone() -> None:
    slices, families = people(range(4))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (fit_outlier(slices, slices, families, seed, 3).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert not torch.equal(first["net.5.weight"], other["net.5.weight"])


def test_bytes_and_floats_are_the_same_slices() -> None:
    slices, families = people(range(3))
    real = (slices / 255).astype(np.float32)
    from_bytes, from_floats = (fit_outlier(each, each, families, steps=2).state_dict() for each in (slices, real))
    assert all(torch.equal(tensor, from_floats[name]) for name, tensor in from_bytes.items())


def test_a_split_says_what_is_learnt_from() -> None:
    slices, families = people(range(5))
    parts = np.repeat(["train", "test", "train", "validation", "validation"], 3)
    split = Split("made", pd.DataFrame({"family": families, "part": parts}))
    expected = fit_outlier(slices[parts == "train"], slices[9:], families[9:], steps=2)
    found = fit(slices, split, steps=2)
    assert all(torch.equal(tensor, found.state_dict()[name]) for name, tensor in expected.state_dict().items())


def test_the_line_lets_the_share_of_an_average_family_pass() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        families = rng.choice(list("abcdef"), 80)
        scores = rng.normal(5, 2, 80)

        def passing(above: float, scores: np.ndarray = scores, families: np.ndarray = families) -> Fraction:
            under = [scores[families == name] <= above for name in np.unique(families)]
            return sum((Fraction(int(own.sum()), len(own)) for own in under), Fraction()) / len(under)

        found = line(scores, families)
        assert passing(found) >= Fraction(str(PASSING))
        lower = scores[scores < found]
        assert passing(lower.max()) < Fraction(str(PASSING))


def test_the_line_is_not_drawn_among_what_is_clearly_a_brain() -> None:
    assert line(np.array([-9.0, -8.0, -7.0]), np.array(["a", "b", "b"])) == LENIENT


class Brightness(Outlier):
    """Stranger the brighter the upper half is, next to the lower."""

    def forward(self, slices: Tensor) -> Tensor:
        return slices[..., :128, :].mean((1, 2, 3)) - slices[..., 128:, :].mean((1, 2, 3))


def test_acceptance_counts_what_passes() -> None:
    slices = people(range(10))[0]
    table = acceptance(Brightness(), slices, seed=3).set_index("kind")
    assert table.index[0] == "real slices"
    excess = slices[:, :128].mean((1, 2)) - slices[:, 128:].mean((1, 2))
    assert table.accepted["real slices"] == pytest.approx(np.mean(excess <= 0))
    assert table.accepted["slices upside down"] == pytest.approx(np.mean(excess >= 0))
    assert table.accepted["slices turned by 180 degrees"] == table.accepted["slices upside down"]
    assert (table.pictures > 0).all()


def test_strangers_are_raw_pictures_that_the_seed_decides() -> None:
    slices = people(range(40))[0]
    first, again, other = strangers(slices, 1), strangers(slices, 1), strangers(slices, 2)
    for kind, pictures in first.items():
        assert pictures.shape[1:] == (256, 256)
        assert 0 < len(pictures) <= 100
        assert all(picture.std() > 0 for picture in pictures), kind  # the reader refuses what is blank
        assert np.array_equal(pictures, again[kind])
        assert len(np.unique(pictures.reshape(len(pictures), -1), axis=0)) > 0.9 * len(pictures), kind
    for drawn in ("text", "noise", "nearly blank", "photographs", "other parts of the body"):
        assert not np.array_equal(first[drawn], other[drawn])
    shown = np.linspace(0, len(slices) - 1, 100).astype(int)
    assert np.array_equal(first["slices upside down"], np.flip(slices[shown], 1))
    assert np.array_equal(first["slices turned by 180 degrees"], np.rot90(slices[shown], 2, (1, 2)))
