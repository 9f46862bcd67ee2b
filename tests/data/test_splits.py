import hashlib
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sslbt.data.splits import FOLDS, PARTS, make_split, shuffled
from sslbt.errors import UserError

BY_FAMILY = ["patient", *(f"patient:{fold}" for fold in range(1, FOLDS + 1))]


def table_of(families: list[tuple[int, int]]) -> pd.DataFrame:
    """A table of families given as (label, slices): every third has two PIDs, folds go by PID."""
    rows = []
    for number, (label, count) in enumerate(families):
        for i in range(count):
            letter = "AB"[i % 2] if number % 3 == 0 else ""
            fold = (number + (letter == "B")) % FOLDS + 1
            rows.append((f"{number}-{i}.mat", f"P{number}{letter}", f"P{number}", label, fold))
    return pd.DataFrame(rows, columns=["file", "patient", "family", "label", "fold"])


@st.composite
def tables(draw: Callable, fewest: int = 3) -> pd.DataFrame:
    """Two or three classes of at least `fewest` families of one to twelve slices, in any order of rows."""
    families = []
    for label in range(draw(st.integers(2, 3))):
        families += [(label, count) for count in draw(st.lists(st.integers(1, 12), min_size=fewest, max_size=20))]
    table = table_of(draw(st.permutations(families)))
    return table.sample(frac=1, random_state=draw(st.integers(0, 99))).reset_index(drop=True)


def families_of(table: pd.DataFrame, part: str) -> set[str]:
    return set(table.family[table.part == part])


LARGE = table_of([(label, 3 + number % 11) for label in range(3) for number in range(60)])


@settings(max_examples=60, deadline=None)
@given(tables(), st.sampled_from(BY_FAMILY))
def test_no_family_is_on_two_sides_and_every_class_in_every_part(table: pd.DataFrame, name: str) -> None:
    split = make_split(table, name)
    pd.testing.assert_frame_equal(split.table[["file", "patient", "family", "label"]], table.drop(columns="fold"))
    assert set(split.table.part) == set(PARTS)
    assert (split.table.groupby("family").part.nunique() == 1).all()
    assert (split.table.groupby("part").label.nunique() == table.label.nunique()).all()
    assert split.warning == ""


@settings(max_examples=40, deadline=None)
@given(tables(fewest=5))
def test_five_turns_test_every_family_once(table: pd.DataFrame) -> None:
    tested = [families_of(make_split(table, f"patient:{fold}").table, "test") for fold in range(1, FOLDS + 1)]
    assert sum(map(len, tested)) == table.family.nunique()
    assert set().union(*tested) == set(table.family)


@settings(max_examples=40, deadline=None)
@given(tables(), st.sampled_from([*BY_FAMILY, "slices", "none"]), st.integers(0, 99))
def test_the_order_of_the_rows_does_not_matter(table: pd.DataFrame, name: str, seed: int) -> None:
    mixed = table.sample(frac=1, random_state=seed).reset_index(drop=True)
    first, second = (make_split(t, name).table.set_index("file").part for t in (table, mixed))
    pd.testing.assert_series_equal(first, second[first.index])


@pytest.mark.parametrize("fold", range(1, FOLDS + 1))
def test_shares_of_each_class(fold: int) -> None:
    table = make_split(LARGE, f"patient:{fold}").table
    shares = table.groupby("label").part.value_counts(normalize=True).unstack()
    families = table.drop_duplicates("family").groupby("label").part.value_counts(normalize=True).unstack()
    np.testing.assert_allclose(families[["train", "validation", "test"]], [[0.7, 0.1, 0.2]] * 3, atol=0.01)
    np.testing.assert_allclose(shares.test, 0.2, atol=0.03)  # large and small families are dealt out evenly


def test_families_are_dealt_by_size_back_and_forth() -> None:
    table = table_of([(0, 10 - number) for number in range(10)])  # P0 is the largest
    parts = {fold: make_split(table, f"patient:{fold}").table for fold in (1, 2, 5)}
    assert {fold: families_of(part, "test") for fold, part in parts.items()} == {
        1: {"P0", "P9"},
        2: {"P1", "P8"},
        5: {"P4", "P5"},
    }
    assert families_of(parts[1], "validation") == {"P5"}  # the fifth of the rest


def test_patient_is_the_first_turn() -> None:
    pd.testing.assert_frame_equal(make_split(LARGE, "patient").table, make_split(LARGE, "patient:1").table)


def test_a_class_of_two_families_is_refused() -> None:
    few = table_of([(0, 4)] * 8 + [(1, 4)] * 2)
    with pytest.raises(UserError, match="class 1 has 2 patient families"):
        make_split(few, "patient")


def test_a_class_that_some_part_would_miss_is_refused() -> None:
    table = table_of([(0, 5)] * 9)
    table.loc[table.family == "P4", "label"] = [0, 0, 0, 0, 1]  # a family counts where most of its slices are
    with pytest.raises(UserError, match="class 1 has no slice in the part"):
        make_split(table, "patient")


@settings(max_examples=60, deadline=None)
@given(tables(), st.integers(1, FOLDS))
def test_an_official_fold_is_the_test(table: pd.DataFrame, fold: int) -> None:
    assume((table.fold == fold).any())
    try:
        split = make_split(table, f"official:{fold}")
    except UserError:
        outside = table[table.fold != fold]
        counts = outside.groupby("label").family.nunique()
        lacking = table.label[table.fold == fold].nunique() < table.label.nunique()
        assert lacking or len(counts) < table.label.nunique() or counts.min() < 2
        return
    found = split.table.part
    np.testing.assert_array_equal(found == "test", table.fold == fold)
    assert not families_of(split.table, "train") & families_of(split.table, "validation")
    assert (split.table.groupby("part").label.nunique() == table.label.nunique()).all()
    crossing = families_of(split.table, "test") & (set(table.family[found != "test"]))
    count = table.family.isin(crossing).sum()
    assert split.warning == (
        f"official fold {fold} is crossed by {len(crossing)} patient families with {count} slices" if crossing else ""
    )


def test_an_official_fold_worked_by_hand() -> None:
    table = table_of([(0, 2), (0, 1), (0, 1), (0, 1), (0, 1)])  # P0 and P3 have slices of two PIDs where they have two
    table["fold"] = [1, 2, 2, 2, 2, 1]
    split = make_split(table, "official:1")
    assert list(split.table.part[[0, 5]]) == ["test", "test"]
    assert split.table.part[1:5].isin(["train", "validation"]).all()
    assert split.warning == "official fold 1 is crossed by 1 patient families with 2 slices"


@pytest.mark.parametrize(
    ("only", "sentence"), [(0, "the data has no fold 2"), (2, "class 0 has no slice in the part t")]
)
def test_an_official_fold_that_cannot_be(only: int, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make_split(LARGE.assign(fold=only), "official:2")


def test_random_slices_are_80_4_16_and_warned_of() -> None:
    split = make_split(LARGE, "slices")
    counts = split.table.part.value_counts()
    assert len(LARGE) == counts.sum()
    assert counts.test == round(0.16 * len(LARGE))
    assert counts.validation == round(0.04 * len(LARGE))
    assert "do not hold for new patients" in split.warning
    assert families_of(split.table, "train") & families_of(split.table, "test")


def test_none_is_all_test() -> None:
    split = make_split(table_of([(2, 3)]), "none")
    assert list(split.table.part) == ["test"] * 3
    assert list(split.rows("test")) == [0, 1, 2]
    assert len(split.rows("train")) == 0


def test_rows_are_those_of_the_table_given() -> None:
    split = make_split(LARGE, "patient:3")
    rows = {part: split.rows(part) for part in PARTS}
    assert sorted(np.concatenate(list(rows.values()))) == list(range(len(LARGE)))
    for part, of_part in rows.items():
        assert set(split.table.part.iloc[of_part]) == {part}


@pytest.mark.parametrize(
    "name",
    [
        *("", "patients", "Patient", "patient:", "patient:0", "patient:6", "patient:x", "patient:²", "patient:01"),
        *("patient:1:2", "official", "official:", "official:x", "official:9", "slices:1", "none:1"),
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"split={name}: choose patient"):
        make_split(LARGE, name)


def test_the_split_is_the_same_everywhere_for_ever() -> None:
    """A new hash breaks the comparison with every run before: change it only on purpose."""
    names = ("patient", "patient:4", "official:2", "slices")
    assert {name: make_split(LARGE, name).hash for name in names} == {
        "patient": "6f5b42ab1acc396b",
        "patient:4": "f9c72de2fda70946",
        "official:2": "73f73c0728a1cf62",
        "slices": "c7241073afbb4c51",
    }


def test_the_hash_is_that_of_the_table_as_csv() -> None:
    table = table_of([(2, 2), (1, 1)])
    text = "file,patient,family,label,part\n0-0.mat,P0A,P0,2,test\n0-1.mat,P0B,P0,2,test\n1-0.mat,P1,P1,1,test\n"
    assert make_split(table, "none").hash == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_the_hash_covers_the_whole_assignment() -> None:
    def moved(column: str, value: object) -> str:
        table = LARGE.copy()
        table.loc[0, column] = value
        return make_split(table, "none").hash

    hashes = [make_split(LARGE, name).hash for name in ("none", "patient", "patient:2")]
    hashes += [moved("file", "x.mat"), moved("patient", "x"), moved("family", "x"), moved("label", 2)]
    assert len(set(hashes)) == len(hashes)
    assert moved("fold", 5) == make_split(LARGE, "none").hash


def test_shuffling_depends_on_names_and_salt_only() -> None:
    names = [str(number) for number in range(100)]
    assert shuffled(names, "a") == shuffled(names[::-1], "a")
    assert sorted(shuffled(names, "a")) == sorted(names)
    assert len({tuple(shuffled(names, salt)) for salt in ("a", "b", "c", "")} | {tuple(names)}) == 5
