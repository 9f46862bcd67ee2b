import itertools

import numpy as np
import pytest

from sslbt.evaluation.suggesting import stand_for_all


def clouds(*families: tuple[str, int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Slices of families given as (name, direction they point to, how many), and whose they are."""
    rng = np.random.default_rng(seed)
    features = [np.eye(8)[direction] + rng.normal(0, 0.05, (count, 8)) for _, direction, count in families]
    return np.concatenate(features), np.repeat([name for name, *_ in families], [count for *_, count in families])


def test_every_kind_of_slice_is_stood_for_by_one_family():
    names = [(f"P{number:02}", number % 4, 1 + number % 5) for number in range(40)]
    features, families = clouds(*names)
    for seed in range(3):
        rows = stand_for_all(features, families, 4, seed)
        assert rows.tolist() == sorted(rows)
        assert {int(family[1:]) % 4 for family in families[rows]} == {0, 1, 2, 3}


def test_the_choice_is_the_nearest_there_is_to_the_middle():
    # With one to choose the centre is known: the middle of all slices, which is where they were moved to.
    features, families = clouds(("A", 0, 5), ("B", 1, 9), ("C", 2, 7))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    unit -= unit.mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    means = {name: unit[families == name].mean(axis=0) for name in "ABC"}
    middle = unit.mean(axis=0)
    nearest = min("ABC", key=lambda name: np.linalg.norm(means[name] - middle))
    away = np.where(families == nearest, np.linalg.norm(unit - means[nearest], axis=1), np.inf)
    assert stand_for_all(features, families, 1, 0).tolist() == [away.argmin()]


def test_a_family_counts_as_often_as_it_has_slices():
    # Two centres for three kinds: that of the many slices keeps its own, the lone two share one.
    features, families = clouds(("A", 0, 50), ("B", 0, 50), ("C", 1, 1), ("D", 2, 1))
    chosen = set(families[stand_for_all(features, families, 2, 0)])
    assert len(chosen & {"A", "B"}) == 1
    assert len(chosen & {"C", "D"}) == 1


@pytest.mark.parametrize("count", range(1, 18))
def test_families_take_turns_as_long_as_they_have_slices(count):
    sizes = {"A": 1, "B": 2, "C": 9, "D": 5}
    features, families = clouds(*((name, place, size) for place, (name, size) in enumerate(sizes.items())))
    rows = stand_for_all(features, families, count, 0)
    assert len(set(rows)) == count
    taken = {name: int((families[rows] == name).sum()) for name in sizes}
    for one, other in itertools.permutations(sizes, 2):
        assert taken[one] <= taken[other] + 1 or taken[other] == sizes[other]


def test_several_of_a_family_differ():
    features, _ = clouds(("A", 0, 6), ("A", 1, 6), ("A", 2, 6))
    rows = stand_for_all(features, np.repeat("A", 18), 3, 0)
    assert (rows // 6).tolist() == [0, 1, 2]


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_the_seed_decides_and_slices_that_look_alike_are_no_trouble():
    features = np.random.default_rng(0).normal(size=(300, 16))
    families = np.arange(300) // 3
    assert np.array_equal(stand_for_all(features, families, 12, 1), stand_for_all(features, families, 12, 1))
    assert len({tuple(stand_for_all(features, families, 12, seed)) for seed in range(5)}) > 1
    for alike in (np.ones((9, 4)), np.zeros((9, 4))):
        with np.errstate(all="raise"):
            assert len(set(stand_for_all(alike, np.arange(9), 5, 0))) == 5
