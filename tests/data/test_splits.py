import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sslbt.data.identity import family
from sslbt.data.splits import FOLDS, LEFT_OUT, PARTS, Split, make_split, shuffled
from sslbt.errors import UserError

BY_FAMILY = ["patient", *(f"patient:{fold}" for fold in range(1, FOLDS + 1))]
OFFICIAL = [f"official:{fold}" for fold in range(1, FOLDS + 1)]
ALL_KINDS = [*BY_FAMILY, *OFFICIAL, "slices", "all", "none"]
NEEDED = {"none": {"test"}, "all": {"train", "validation"}}  # parts; elsewhere all three
CLASSES = ("meningioma", "glioma", "pituitary")
NAMES = (*CLASSES, "None", "NA", "grade 2", "grade 10", "no-tumour", "a.b", "Ödem", "0")
STRANGE = (
    "NA",
    "nan",
    "None",
    "-1",
    "1e5",
    "007",
    "True",
    "=1+1",
    'a,b;"c" 4',
    "père 1",
    "患者 9",
    " ",
    "P1AB",
    "../1",
)

many = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def table_of(families: list[tuple[int, int]]) -> pd.DataFrame:
    """A table of families given as (label, slices): every third has two PIDs, folds go by PID."""
    rows = []
    for number, (label, count) in enumerate(families):
        for i in range(count):
            letter = "AB"[i % 2] if number % 3 == 0 else ""
            fold = (number + (letter == "B")) % FOLDS + 1
            rows.append((f"{number}-{i}.mat", f"P{number}{letter}", f"P{number}", label, fold))
    return pd.DataFrame(rows, columns=["file", "patient", "family", "label", "fold"])


LARGE = table_of([(label, 3 + number % 11) for label in range(3) for number in range(60)])

Case = tuple[pd.DataFrame, tuple[str, ...]]  # a table and the names of its classes


@st.composite
def cases(draw: st.DrawFn, fewest: int = 1, pure: bool = False) -> Case:
    """One to five classes of up to 60 families of up to 40 slices a patient, in any order of rows.

    Args:
        fewest: families of a class.
        pure: whether all patients of a family are of one class.
    """
    count = draw(st.sampled_from([1, 2, 2, 3, 3, 4, 5]))
    first = draw(st.integers(0, len(NAMES) - 1))
    least = max(fewest, draw(st.sampled_from([1, 3, 3, 10])))
    most = min(60, least + draw(st.sampled_from([0, 2, 9, 60])))
    longest = draw(st.sampled_from([1, 2, 3, 5, 10, 40]))
    mixed = 0 if pure else draw(st.sampled_from([0, 0.1, 0.6]))
    bare_slices, bare_families = draw(st.sampled_from([(0, 0), (0.1, 0.1), (0.9, 0), (0, 0.5)]))
    folds = draw(st.sampled_from(["by slice", "by patient", "none"]))
    prefix = draw(st.sampled_from(["", "P", "MR0", "é", "患 ", '"', "a,b\\"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))  # for what is too much to draw one by one

    home = rng.permutation(np.repeat(range(count), rng.integers(least, most + 1, count)))  # each family's class
    persons = [f"{prefix}_{i}" for i in range(len(home))]
    persons[: rng.integers(4)] = rng.permutation(STRANGE)[:3].tolist()
    letters = [("", "A", "BD", "ABz")[kind] or [""] for kind in rng.integers(4, size=len(home))]
    patients = np.array([persons[i] + letter for i, own in enumerate(letters) for letter in own], object)
    families = np.array([family(patient) for patient in patients], object)
    of_patient = np.repeat(range(len(home)), [len(own) for own in letters])
    label = np.where(rng.random(len(patients)) < mixed, rng.integers(count, size=len(patients)), home[of_patient])
    label[(rng.random(len(home)) < bare_families)[of_patient]] = -1

    of_slice = rng.permutation(np.repeat(range(len(patients)), rng.integers(1, longest + 1, len(patients))))
    by_patient, by_slice = (rng.integers(FOLDS + 1, size=len(of)) for of in (patients, of_slice))
    columns = {
        "file": [str(rng.choice(STRANGE)), *(f"{prefix}/{i}.mat" for i in range(1, len(of_slice)))],
        "patient": patients[of_slice],
        "family": families[of_slice],
        "label": np.where(rng.random(len(of_slice)) < bare_slices, -1, label[of_slice]),
        "fold": {"none": by_slice * 0, "by patient": by_patient[of_slice], "by slice": by_slice}[folds],
    }
    return pd.DataFrame(columns), (NAMES * 2)[first : first + count]


def split_or_refusal(case: Case, name: str) -> Split | str:
    try:
        return make_split(case[0], name, case[1])
    except UserError as error:
        return str(error)


def split_of(table: pd.DataFrame, name: str) -> Split:
    return make_split(table, name, CLASSES)


def classes_of_families(case: Case) -> dict[str, int]:
    """Where most of a family's slices are; where classes are level, the first by name."""
    table, names = case
    counts = Counter(zip(table.family.tolist(), table.label.tolist(), strict=True))
    labelled = [(one, label) for one, label in counts if label >= 0]
    classes: dict[str, int] = {}
    for one, label in sorted(labelled, key=lambda pair: (-counts[pair], names[pair[1]])):
        classes.setdefault(one, label)
    return classes


def families_of(table: pd.DataFrame, part: str) -> set[str]:
    return set(table.family[table.part == part].tolist())


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
