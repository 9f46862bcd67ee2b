"""What every split promises, whatever the table: properties of drawn cases."""

import re
from collections import Counter

import numpy as np
import pandas as pd
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from split_cases import (
    ALL_KINDS,
    BY_FAMILY,
    NEEDED,
    Case,
    cases,
    classes_of_families,
    families_of,
    many,
    split_or_refusal,
)

from sslbt.data.splits import FOLDS, LEFT_OUT, PARTS, Split, make_split, shuffled


@settings(many, max_examples=1000)
@given(cases(), st.sampled_from(ALL_KINDS))
def test_a_split_keeps_every_promise_or_is_refused(case: Case, name: str) -> None:
    found = split_or_refusal(case, name)
    if isinstance(found, str):
        check_refusal(case, name, found)
        return
    table = found.table
    for column in ("file", "patient", "family", "label"):
        assert table[column].tolist() == case[0][column].tolist()
    labels, parts = table.label.tolist(), table.part.tolist()
    wanted = {(label, part) for label in set(labels) for part in NEEDED.get(name, PARTS) if label >= 0}
    assert {(label, part) for label, part in zip(labels, parts, strict=True) if label >= 0} == wanted
    check_crossing(case[0], found)
    check_unlabelled(case[0], found)


def check_crossing(table: pd.DataFrame, found: Split) -> None:
    kind, _, fold = found.name.partition(":")
    if kind == "slices":
        assert "do not hold for new patients" in found.warning
        return
    train, validation, test = (families_of(found.table, part) for part in PARTS)
    assert not train & validation
    crossing = test & (train | validation)
    assert kind == "official" or not crossing
    slices = sum(
        one in crossing and part in PARTS
        for one, part in zip(table.family.tolist(), found.table.part.tolist(), strict=True)
    )
    count = f"official fold {fold} is crossed by {len(crossing)} patient families with {slices} slices"
    assert found.warning == (count if crossing else "")
    if kind == "official":
        np.testing.assert_array_equal(found.table.part == "test", (table.fold == int(fold)) & (table.label >= 0))


def check_unlabelled(table: pd.DataFrame, found: Split) -> None:
    """They train, unless their family (or they themselves, by fold) is to judge by."""
    part, labelled = found.table.part.to_numpy(), (table.label >= 0).to_numpy()
    kind, _, fold = found.name.partition(":")
    judging = families_of(found.table, "validation") | families_of(found.table, "test")
    own = table.family.isin(judging).to_numpy()
    judged = {
        "slices": own & False,
        "all": own,
        "none": own | True,
        "patient": own,
        "official": own | (table.fold == int(fold or 0)).to_numpy(),
    }[kind]
    np.testing.assert_array_equal(part[~labelled], np.where(judged[~labelled], LEFT_OUT, "train"))


def check_refusal(case: Case, name: str, said: str) -> None:
    """One sentence that is true, and names the class if there is one to blame."""
    table, names = case
    held = sorted(set(table.label) - {-1})
    kind, _, fold = name.partition(":")
    outside = table[table.fold != int(fold)] if kind == "official" else table
    counts = Counter(names[label] for label in classes_of_families((outside, names)).values())
    lacking = {f"class {one} has {count} " for one, count in counts.items()}

    assert "\n" not in said
    if len(held) < 2:
        only = f"only slices of the class {names[held[0]]}" if held else "no labelled slice"
        assert said.startswith(f"split={name}: the data hold {only}; training needs two classes")
        assert not held or name != "none"
    elif kind == "official" and not (table.fold == int(fold)).any():
        assert said.startswith(f"split={name}: the data has no fold {fold}; ")
    elif kind == "patient" and 0 < min(counts.values()) < 3:
        assert any(said.startswith(one + "patient families; a split needs 3") for one in lacking)
    elif kind in ("official", "all") and counts and min(counts.values()) < 2:
        assert any(said.startswith(one + "families to train and to validate on; ") for one in lacking)
    else:
        blamed, part = re.fullmatch(
            rf"split={name}: class (.*) has no slice in the part (\w+); use another split, or more data", said
        ).groups()
        assert blamed in {names[label] for label in held}
        check_cannot_be(case, kind, int(fold or 0), names.index(blamed), part)


def check_cannot_be(case: Case, kind: str, fold: int, label: int, part: str) -> None:
    """Where every class has families of its own, only a part that isn't cut by them can lack a class."""
    table, _ = case
    own = table[table.label == label]
    if kind == "official":
        assert part != "test" or not (own.fold == fold).any()
        assert part == "test" or label not in classes_of_families((table[table.fold != fold], case[1])).values()
    elif kind in ("patient", "all"):
        assert label not in classes_of_families(case).values()
    else:
        order = shuffled(list(table.file[table.label >= 0]), "slices")
        test, validation = round(0.16 * len(order)), round(0.04 * len(order))
        ranges = {"test": order[:test], "validation": order[test : test + validation]}
        assert kind == "slices"
        assert not set(own.file) & set(ranges.get(part, order[test + validation :]))


@settings(many, max_examples=400)
@given(cases(), st.sampled_from(ALL_KINDS), st.integers(0, 2**32 - 1))
def test_neither_the_order_of_rows_nor_the_numbers_of_classes_matter(case: Case, name: str, seed: int) -> None:
    table, names = case
    rng = np.random.default_rng(seed)
    place = rng.permutation(len(names))  # class i becomes class place[i]
    mixed = table.iloc[rng.permutation(len(table))].reset_index(drop=True)
    mixed["label"] = np.append(place, -1)[mixed.label]
    renamed = tuple(names[i] for i in np.argsort(place))
    assert parts_by_file(case, name) == parts_by_file((mixed, renamed), name)


@settings(many, max_examples=250)
@given(cases(), st.sampled_from(ALL_KINDS))
def test_unlabelled_slices_change_nothing_for_the_labelled(case: Case, name: str) -> None:
    """Neither those of families that are there already nor those of new ones."""
    table, names = case
    half = np.arange(len(table)) % 2 == 0
    more = table.assign(label=-1, file="more/" + table.file, family=np.where(half, table.family, table.family + "'"))
    before, after = parts_by_file(case, name), parts_by_file((pd.concat([more, table], ignore_index=True), names), name)
    labelled = table.file[table.label >= 0].tolist()
    assert [after.get(file) for file in labelled] == [before.get(file) for file in labelled]


def parts_by_file(case: Case, name: str) -> dict[str, str]:
    """Empty where it is refused."""
    found = split_or_refusal(case, name)
    return (
        {} if isinstance(found, str) else dict(zip(found.table.file.tolist(), found.table.part.tolist(), strict=True))
    )


@settings(many, max_examples=350)
@given(cases(), st.sampled_from(BY_FAMILY))
def test_a_fifth_of_the_families_of_each_class_is_tested_and_a_tenth_validates(case: Case, name: str) -> None:
    """Of n families, n/5 rounded up or down and, of ten or more, n/10 give or take 0.6.

    Dealing gives each fold one family a round, so less than one more or less than n/5; a family in eight of the
    others, from the fifth on, is (n - test - 4)/8 rounded up.
    """
    found = split_or_refusal(case, name)
    if isinstance(found, str):
        return
    classes = classes_of_families(case)
    for label in set(classes.values()):
        own = {one for one, its in classes.items() if its == label}
        tested, validated = (len(own & families_of(found.table, part)) for part in ("test", "validation"))
        assert max(1, len(own) // FOLDS) <= tested <= -(-len(own) // FOLDS)
        assert validated >= 1
        assert len(own) < 10 or abs(10 * validated - len(own)) <= 6


@settings(many, max_examples=150)
@given(cases(fewest=3, pure=True))
def test_three_families_of_every_class_are_enough_and_five_turns_test_them_all(case: Case) -> None:
    table, names = case
    classes = classes_of_families(case)
    counts = Counter(classes.values())
    assume(len(counts) > 1 and min(counts.values()) >= 3)  # not where nobody has labelled the others
    tested: Counter[str] = Counter()
    for fold in range(1, FOLDS + 1):
        tested.update(families_of(make_split(table, f"patient:{fold}", names).table, "test"))
    assert set(tested) == set(classes)
    assert all(tested[one] == 1 for one, label in classes.items() if counts[label] >= FOLDS)


@settings(many, max_examples=150)
@given(cases())
def test_all_tests_nobody_and_a_tenth_of_the_families_of_each_class_validates(case: Case) -> None:
    """Of n families one in ten from the fifth on, so (n - 4)/10 rounded up; of fewer than five the last."""
    found = split_or_refusal(case, "all")
    if isinstance(found, str):
        return
    assert "test" not in set(found.table.part)
    validation, classes = families_of(found.table, "validation"), classes_of_families(case)
    for label in set(classes.values()):
        own = {one for one, its in classes.items() if its == label}
        assert len(own & validation) == max(1, -(-(len(own) - 4) // 10))
