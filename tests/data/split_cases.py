"""Tables of slices to be split, drawn at random and by hand."""

from collections import Counter

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from sslbt.data.identity import family
from sslbt.data.splits import FOLDS, Split, make_split
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
