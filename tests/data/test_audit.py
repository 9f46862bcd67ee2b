import numpy as np
import pandas as pd
import pytest

from sslbt.data.audit import audit
from sslbt.data.cache import Cache
from sslbt.data.splits import LEFT_OUT, Split

PARTS = ["train", "train", "validation", "test", "test", LEFT_OUT]
FAMILIES = ["A", "B", "C", "D", "D", "D"]
FOLDS = [1, 2, 1, 2, 3, 0]


def look(pairs: list[tuple[int, int, float]], name: str = "patient", families: list[str] = FAMILIES):
    table = pd.DataFrame(
        {
            "file": [f"{i}.png" for i in range(6)],
            "patient": [f"{family}{i}" for i, family in enumerate(families)],
            "family": families,
            "label": [0, 1, 0, 1, 0, -1],
        }
    )
    similar = pd.DataFrame(pairs, columns=["first", "second", "likeness"])
    cache = Cache(
        np.zeros((6, 256, 256), np.uint8), table.assign(fold=FOLDS), pd.DataFrame(), similar, "", False, ("a", "b")
    )
    return audit(cache, Split(name, table.assign(part=PARTS)))


def test_a_clean_split() -> None:
    found = look([])
    assert not found.stops
    assert found.findings[:2] == ["no picture, nor a copy of it, is in two parts", "no patient family is in two parts"]
    assert found.facts["leaking_pairs"] == found.facts["crossing_families"] == 0


def test_one_picture_on_both_sides_stops_training() -> None:
    found = look([(0, 3, 1.0), (1, 2, 0.93)])
    assert found.stops
    assert list(found.leaks.first_file) == ["0.png", "1.png"]
    assert found.findings[0] == (
        "0.png (patient A0, train) and 3.png (patient D3, test) are the same picture, and 1 more such pairs"
    )
    assert "almost the same picture" in look([(1, 2, 0.93)]).findings[0]


@pytest.mark.parametrize("pair", [(0, 1), (3, 5)], ids=["within one part", "with a slice that is left out"])
def test_pairs_that_leak_nothing_are_told(pair: tuple[int, int]) -> None:
    found = look([(*pair, 0.95)])
    assert not found.stops
    assert found.facts["similar_pairs"] == 1
    assert found.facts["leaking_pairs"] == 0
    assert any("1 pairs" in finding for finding in found.findings)


def test_a_split_by_slices_leaks_by_its_nature() -> None:
    found = look([(0, 3, 1.0)], "slices", ["A", "B", "A", "A", "B", "C"])
    assert not found.stops
    assert len(found.leaks) == 1
    assert dict(zip(found.crossing.family, found.crossing.slices, strict=True)) == {"A": 3, "B": 2}
    assert "patient families in two parts: 2, with 5 slices" in found.findings


def test_families_across_the_datas_own_folds_are_counted() -> None:
    found = look([])
    # D lies in the folds 2 and 3; its third slice has no fold.
    assert (found.fold_families, found.fold_slices) == (1, 2)
    assert "patient families across the data's own folds: 1, 2 slices" in found.findings
