"""Splits worked by hand, refused, and the same for ever."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from split_cases import (
    CLASSES,
    LARGE,
    families_of,
    split_of,
    table_of,
)

from sslbt.data.splits import FOLDS, LEFT_OUT, PARTS, make_split, shuffled
from sslbt.errors import UserError


def test_all_worked_by_hand() -> None:
    """The fifth by size and every tenth after it, as with the other splits by family; of four the smallest."""
    table = table_of([(0, 20 - number) for number in range(16)] + [(1, 9 - number) for number in range(4)])
    split = split_of(table, "all")
    assert families_of(split.table, "validation") == {"P4", "P14", "P19"}
    assert families_of(split.table, "train") == set(table.family) - {"P4", "P14", "P19"}
    assert split.warning == ""


def test_a_dozen_slices_of_as_many_patients_are_enough_for_all() -> None:
    table = table_of([(label, 1) for label in range(3) for _ in range(4)])
    split = split_of(table, "all")
    assert split.table.groupby("label").part.value_counts().to_dict() == {
        (label, part): count for label in range(3) for part, count in (("train", 3), ("validation", 1))
    }
    with pytest.raises(UserError, match="class glioma has 1 families to train and to validate on; it needs 2"):
        split_of(table_of([(0, 1), (0, 1), (1, 3)]), "all")


@pytest.mark.parametrize("fold", range(1, FOLDS + 1))
def test_shares_of_each_class(fold: int) -> None:
    table = split_of(LARGE, f"patient:{fold}").table
    shares = table.groupby("label").part.value_counts(normalize=True).unstack()
    families = table.drop_duplicates("family").groupby("label").part.value_counts(normalize=True).unstack()
    np.testing.assert_allclose(families[["train", "validation", "test"]], [[0.7, 0.1, 0.2]] * 3, atol=0.01)
    np.testing.assert_allclose(shares.test, 0.2, atol=0.03)  # large and small families are dealt out evenly


def test_families_are_dealt_by_size_back_and_forth() -> None:
    table = table_of([(0, 10 - number) for number in range(10)] + [(1, 1)] * 3)  # P0 is the largest
    parts = {fold: split_of(table, f"patient:{fold}").table for fold in (1, 2, 5)}
    large = {f"P{number}" for number in range(10)}
    assert {fold: families_of(part, "test") & large for fold, part in parts.items()} == {
        1: {"P0", "P9"},
        2: {"P1", "P8"},
        5: {"P4", "P5"},
    }
    assert families_of(parts[1], "validation") & large == {"P5"}  # the fifth of the rest


def test_patient_is_the_first_turn() -> None:
    pd.testing.assert_frame_equal(split_of(LARGE, "patient").table, split_of(LARGE, "patient:1").table)


def test_a_class_of_two_families_is_refused() -> None:
    few = table_of([(0, 4)] * 8 + [(1, 4)] * 2)
    with pytest.raises(UserError, match="class glioma has 2 patient families"):
        split_of(few, "patient")


def test_a_class_that_some_part_would_miss_is_refused() -> None:
    table = table_of([(0, 5)] * 9)
    table.loc[table.family == "P4", "label"] = [0, 0, 0, 0, 1]  # a family counts where most of its slices are
    with pytest.raises(UserError, match="class glioma has no slice in the part"):
        split_of(table, "patient")


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_a_family_between_two_classes_counts_with_the_first_by_name(names: tuple[str, str]) -> None:
    table = table_of([(0, 2), (0, 2)] + [(names.index("a"), 2)] * 3 + [(names.index("b"), 2)] * 2)
    table.loc[table.family.isin(["P0", "P1"]), "label"] = [0, 1, 0, 1]
    with pytest.raises(UserError, match="class b has 2 patient families"):
        make_split(table, "patient", names)


@pytest.mark.parametrize("name", ["patient", "official:1", "slices"])
@pytest.mark.parametrize(("label", "sentence"), [(2, "only slices of the class pituitary"), (-1, "no labelled slice")])
def test_less_than_two_classes_are_refused(name: str, label: int, sentence: str) -> None:
    with pytest.raises(UserError, match=f"split={name}: the data hold {sentence}; training needs two classes"):
        split_of(LARGE.assign(label=label), name)


def test_nothing_labelled_can_not_be_judged() -> None:
    with pytest.raises(UserError, match="split=none: the data hold no labelled slice"):
        split_of(LARGE.assign(label=-1), "none")


def test_an_official_fold_worked_by_hand() -> None:
    table = table_of([(0, 3), (0, 1), (0, 1), (1, 3), (1, 1), (1, 1)])
    table["fold"] = [1, 2, 2, 2, 2, 1, 1, 2, 2, 2]
    split = split_of(table, "official:1")
    assert list(split.table.part == "test") == [fold == 1 for fold in table.fold]
    assert split.warning == "official fold 1 is crossed by 2 patient families with 6 slices"  # P0 and P3

    table.loc[[1, 5], "label"] = -1  # of P0, outside the fold; of P3, within
    split = split_of(table, "official:1")
    assert list(split.table.part[:3]) == ["test", LEFT_OUT, split.table.part[2]]
    assert list(split.table.part[5:7]) == [LEFT_OUT, "test"]
    assert split.warning == "official fold 1 is crossed by 2 patient families with 4 slices"


@pytest.mark.parametrize(
    ("only", "sentence"), [(0, "the data has no fold 2"), (2, "class meningioma has no slice in the part t")]
)
def test_an_official_fold_that_cannot_be(only: int, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        split_of(LARGE.assign(fold=only), "official:2")


def test_random_slices_are_80_4_16_and_warned_of() -> None:
    split = split_of(LARGE, "slices")
    counts = split.table.part.value_counts()
    assert len(LARGE) == counts.sum()
    assert counts.test == round(0.16 * len(LARGE))
    assert counts.validation == round(0.04 * len(LARGE))
    assert "do not hold for new patients" in split.warning
    assert families_of(split.table, "train") & families_of(split.table, "test")


def test_none_is_all_test() -> None:
    table = table_of([(2, 3)])
    split = split_of(table, "none")
    assert list(split.table.part) == ["test"] * 3
    assert list(split.rows("test")) == [0, 1, 2]
    assert len(split.rows("train")) == 0
    assert list(split_of(table.assign(label=[-1, 2, 2]), "none").table.part) == [LEFT_OUT, "test", "test"]


def test_rows_are_those_of_the_table_given() -> None:
    split = split_of(LARGE, "patient:3")
    rows = {part: split.rows(part) for part in PARTS}
    assert sorted(np.concatenate(list(rows.values()))) == list(range(len(LARGE)))
    for part, of_part in rows.items():
        assert set(split.table.part.iloc[of_part]) == {part}


@pytest.mark.parametrize(
    "name",
    [
        *("", "patients", "Patient", "patient:", "patient:0", "patient:6", "patient:x", "patient:²", "patient:01"),
        *("patient:1:2", "official", "official:", "official:x", "official:9", "slices:1", "none:1", "all:1"),
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"split={name}: choose patient"):
        split_of(LARGE, name)


HASHES = {
    "patient": "6f5b42ab1acc396b",
    "patient:4": "f9c72de2fda70946",
    "official:2": "73f73c0728a1cf62",
    "slices": "c7241073afbb4c51",
    "all": "722f25a8d2ce85c5",
}


def test_the_split_is_the_same_for_ever() -> None:
    """A new hash breaks the comparison with every run before: change it only on purpose."""
    assert {name: split_of(LARGE, name).hash for name in HASHES} == HASHES


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_the_split_is_the_same_in_every_process_and_from_every_kind_of_column(seed: str, tmp_path: Path) -> None:
    LARGE.to_csv(tmp_path / "table.csv", index=False)
    program = f"""
import pandas as pd
from sslbt.data.splits import make_split
table = pd.read_csv({str(tmp_path / "table.csv")!r})
for text in ("object", "category", "str", "string[pyarrow]", "string[python]"):
    for number in ("int8", "int64", "Int64", "int64[pyarrow]"):
        types = dict.fromkeys(["file", "patient", "family"], text) | dict.fromkeys(["label", "fold"], number)
        print(*(make_split(table.astype(types), name, {CLASSES}).hash for name in {list(HASHES)}))
"""
    environment = os.environ | {"PYTHONHASHSEED": seed, "LC_ALL": "C"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [" ".join(HASHES.values())] * 20


def test_the_hash_is_that_of_the_table_as_csv() -> None:
    table = table_of([(2, 2), (1, 1)])
    text = "file,patient,family,label,part\n0-0.mat,P0A,P0,2,test\n0-1.mat,P0B,P0,2,test\n1-0.mat,P1,P1,1,test\n"
    assert split_of(table, "none").hash == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_the_hash_covers_the_whole_assignment() -> None:
    def moved(column: str, value: object) -> str:
        table = LARGE.copy()
        table.loc[0, column] = value
        return split_of(table, "none").hash

    hashes = [split_of(LARGE, name).hash for name in ("none", "patient", "patient:2")]
    hashes += [moved("file", "x.mat"), moved("patient", "x"), moved("family", "x"), moved("label", 2)]
    assert len(set(hashes)) == len(hashes)
    assert moved("fold", 5) == split_of(LARGE, "none").hash


def test_shuffling_depends_on_names_and_salt_only() -> None:
    names = [str(number) for number in range(100)]
    assert shuffled(names, "a") == shuffled(names[::-1], "a")
    assert sorted(shuffled(names, "a")) == sorted(names)
    assert len({tuple(shuffled(names, salt)) for salt in ("a", "b", "c", "")} | {tuple(names)}) == 5
