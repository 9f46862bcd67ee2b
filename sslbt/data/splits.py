"""Who is trained on, who is validated on, who is tested on: by patient family, so that nobody is on both sides.

Order comes from SHA-256 of names, never from a random number generator, so that every machine and library version
makes the same split.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sslbt.errors import UserError

FOLDS = 5
PARTS = ("train", "validation", "test")
LEFT_OUT = "left out"  # unlabelled slices of patients who validate or test: neither learnt from nor judged by


@dataclass(frozen=True)
class Split:
    """The part of every slice of a table, in its order, with a hash over the whole assignment."""

    name: str
    table: pd.DataFrame  # file, patient, family, label, part
    warning: str = ""

    @property
    def hash(self) -> str:
        """16 hexadecimal digits over the table; the name of the split is no part of it."""
        return hashlib.sha256(self.table.to_csv(index=False, lineterminator="\n").encode()).hexdigest()[:16]

    def rows(self, part: str) -> np.ndarray:
        """Row numbers of one part."""
        return np.flatnonzero(self.table.part == part)


def make_split(table: pd.DataFrame, name: str, classes: tuple[str, ...]) -> Split:
    """Assign every slice to train, validation or test; unlabelled slices train or are left out.

    Args:
        table: file, patient, family, label (index into `classes`, -1 where unlabelled), fold per slice.
        name: `patient` or `patient:K` (a fifth of the families of each class is test, a tenth validation; K = 1..5
            takes turns), `official:K` (the dataset's fold K is test), `slices` (the origin's random 80/4/16), `all`
            (a tenth of the families of each class is validation, nobody test) or `none` (all is test).
        classes: names of the classes.

    Raises:
        UserError: an unknown name, or too few families to fill every part with every class.
    """
    labelled = table.label >= 0
    held = sorted(table.label[labelled].unique())
    if len(held) < (1 if name == "none" else 2):
        only = f"only slices of the class {classes[held[0]]}" if held else "no labelled slice"
        raise UserError(f"split={name}: the data hold {only}; training needs two classes (split=none evaluates one)")
    kind, _, number = ("patient:1" if name == "patient" else name).partition(":")
    fold = int(number) if number in map(str, range(1, FOLDS + 1)) else None
    if kind == "patient" and fold:
        part, warning = _by_family(table, _test_families(table, fold, classes), classes), ""
    elif kind == "official" and fold:
        part, warning = _official(table, fold, classes)
    elif name == "slices":
        part = _by_slice(table)
        warning = "split=slices puts slices of one patient on both sides: its figures do not hold for new patients"
    elif name == "all":
        part, warning = _by_family(table, set(), classes, every=10), ""
    elif name == "none":
        part, warning = np.full(len(table), "test", object), ""
    else:
        raise UserError(
            f"split={name}: choose patient, patient:1 to patient:5, official:1 to official:5, slices, all or none"
        )
    part[(~labelled & (part != "train")).to_numpy()] = LEFT_OUT
    if name != "none":
        _check_complete(table, part, name, classes)
    return Split(name, table[["file", "patient", "family", "label"]].assign(part=part), warning)


def some(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of these rows, evenly picked."""
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]


def shuffled(names: list[str], salt: str) -> list[str]:
    """A fixed random order of these names, another for each salt."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{salt}|{name}".encode()).digest())


def _families(table: pd.DataFrame, classes: tuple[str, ...]) -> dict[int, list[str]]:
    """Families of each class, most slices first, equals in random order.

    A family counts where most of its slices are; where classes are level, with the first by name.
    """
    slices = zip(table.family.tolist(), table.label.tolist(), strict=True)
    counts = Counter((name, label) for name, label in slices if label >= 0)
    ranked = sorted(counts, key=lambda pair: (-counts[pair], classes[pair[1]]))
    label_of = dict(reversed(ranked))  # of a family's labels the first in rank stays
    sizes: Counter[str] = Counter()
    for (name, _), count in counts.items():
        sizes[name] += count
    ordered: dict[int, list[str]] = {label: [] for label in sorted(set(label_of.values()))}
    for name in sorted(shuffled(list(sizes), "split"), key=lambda name: -sizes[name]):
        ordered[label_of[name]].append(name)
    return ordered


def _test_families(table: pd.DataFrame, fold: int, classes: tuple[str, ...]) -> set[str]:
    chosen: set[str] = set()
    for label, names in _families(table, classes).items():
        if len(names) < 3:
            raise UserError(
                f"class {classes[label]} has {len(names)} patient families; a split needs 3 (split=none evaluates only)"
            )
        # Deal them out like cards, back and forth, so that every fold gets large and small families.
        dealt = [i % FOLDS if (i // FOLDS) % 2 == 0 else FOLDS - 1 - i % FOLDS for i in range(len(names))]
        own = {name for name, to in zip(names, dealt, strict=True) if to == fold - 1}
        chosen |= own or {names[(fold - 1) % len(names)]}
    return chosen


def _by_family(table: pd.DataFrame, test: set[str], classes: tuple[str, ...], every: int = 8) -> np.ndarray:
    """Test as given; of the other families of each class one in `every` validates: a tenth of all."""
    validation: set[str] = set()
    for label, names in _families(table, classes).items():
        rest = [name for name in names if name not in test]
        if len(rest) < 2:
            raise UserError(f"class {classes[label]} has {len(rest)} families to train and to validate on; it needs 2")
        validation |= set(rest[min(4, len(rest) - 1) :: every])
    inside = [table.family.isin(test), table.family.isin(validation)]
    return np.select(inside, ["test", "validation"], "train").astype(object)


def _official(table: pd.DataFrame, fold: int, classes: tuple[str, ...]) -> tuple[np.ndarray, str]:
    if not (table.fold == fold).any():
        raise UserError(f"split=official:{fold}: the data has no fold {fold}; cvind.mat belongs beside the slices")
    labelled = table.label >= 0
    tested = set(table.family[labelled & (table.fold == fold)])
    # Nothing unlabelled of the patients tested trains, though the fold has only some of their slices.
    test = ((table.fold == fold) | (~labelled & table.family.isin(tested))).to_numpy(bool)
    part = np.full(len(table), "test", object)
    part[~test] = _by_family(table[~test], set(), classes)
    both = tested & set(table.family[~test])
    if not both:
        return part, ""
    crossing = (labelled & table.family.isin(both)).sum()
    return part, f"official fold {fold} is crossed by {len(both)} patient families with {crossing} slices"


def _check_complete(table: pd.DataFrame, part: np.ndarray, name: str, classes: tuple[str, ...]) -> None:
    needed = set(PARTS) - ({"test"} if name == "all" else set())
    for label in sorted(table.label[table.label >= 0].unique()):
        missing = needed - set(part[table.label == label])
        if missing:
            raise UserError(
                f"split={name}: class {classes[label]} has no slice in the part {min(missing)}; use another split, or "
                "more data"
            )


def _by_slice(table: pd.DataFrame) -> np.ndarray:
    order = shuffled(list(table.file[table.label >= 0]), "slices")
    test, validation = round(0.16 * len(order)), round(0.04 * len(order))
    part = dict.fromkeys(order[:test], "test") | dict.fromkeys(order[test : test + validation], "validation")
    return table.file.map(lambda file: part.get(file, "train")).to_numpy(object)
