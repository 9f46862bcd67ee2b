"""Which slices of the training part have a label: a few, balanced by class and spread over patients."""

import re
from itertools import chain, zip_longest

import numpy as np
import pandas as pd

from sslbt.data.source import at
from sslbt.data.splits import Split, shuffled
from sslbt.data.spreadsheet import read_csv
from sslbt.errors import UserError

FORMS = "a number such as 12, a share such as 10%, patients a class such as 5p, all, or a CSV of file and class"


def labels_of(split: Split, labels: str, seed: int, classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the labelled training slices, in rising order, and their labels.

    For one seed the budgets are nested: the 12 are among the 123. Classes take turns, within a class the patient
    families take turns.

    Args:
        labels: `12`, `10%` of the labelled training slices, `5p` (all labelled slices of five patients a class),
            `all`, or the path of a CSV with the columns `file` and `class`, which may label what the data does not.

    Raises:
        UserError: another form, more labels than training slices, fewer than one a class, or a CSV that doesn't fit.
    """
    train = split.table[split.table.part == "train"]
    if labels.lower().endswith(".csv"):
        return _from_csv(train, labels, classes)
    rows = _chosen(train[train.label >= 0], labels, seed, classes)
    return rows, split.table.label.to_numpy()[rows]


def choose_labels(split: Split, labels: str, seed: int, classes: tuple[str, ...]) -> np.ndarray:
    """The row numbers alone."""
    return labels_of(split, labels, seed, classes)[0]


def _chosen(train: pd.DataFrame, labels: str, seed: int, classes: tuple[str, ...]) -> np.ndarray:
    if labels == "all":
        return train.index.to_numpy()
    form = re.fullmatch(r"(\d{1,9})([%p]?)", labels)
    if not form:
        raise UserError(f"labels={labels}: give {FORMS}")
    number, unit = int(form[1]), form[2]
    if unit == "p":
        return _patients(train, number, seed, classes)
    count = round(number / 100 * len(train)) if unit == "%" else number
    present = train.label.nunique()
    if not present <= count <= len(train):
        raise UserError(
            f"labels={labels}: {count} slices; the training part has {len(train)} labelled ones of {present} classes"
        )
    return np.sort(np.array(_take_turns(train, seed)[:count]))


def _take_turns(train: pd.DataFrame, seed: int) -> list[int]:
    """All training rows: one of each class, one of each class, ...; within a class, one of each family, ..."""
    by_class = []
    for _, of_class in train.groupby("label"):
        rows_of = {str(name): list(group.index) for name, group in of_class.groupby("family")}
        files = of_class.file.to_dict()
        by_family = []
        for name in shuffled(list(rows_of), f"family|{seed}"):
            row_of = {files[row]: row for row in rows_of[name]}
            by_family.append([row_of[file] for file in shuffled(list(row_of), f"file|{seed}")])
        by_class.append(_rounds(by_family))
    return _rounds(by_class)


def _rounds(queues: list[list[int]]) -> list[int]:
    return [row for row in chain.from_iterable(zip_longest(*queues)) if row is not None]


def _patients(train: pd.DataFrame, count: int, seed: int, classes: tuple[str, ...]) -> np.ndarray:
    rows: list[int] = []
    for _, of_class in train.groupby("label"):
        families = shuffled(list(of_class.family.unique()), f"family|{seed}")
        if not 1 <= count <= len(families):
            name = classes[of_class.label.iloc[0]]
            raise UserError(f"labels={count}p: class {name} has {len(families)} patient families to train on")
        rows.extend(of_class.index[of_class.family.isin(families[:count])])
    return np.sort(np.array(rows, np.int64))


def _from_csv(train: pd.DataFrame, labels: str, classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    try:
        given = read_csv(at(labels))
        names = list(given.columns)
        if names.count("file") != 1 or names.count("class") != 1:
            raise ValueError(f"its columns are {', '.join(names)}")
        wanted = list(zip(given["file"], given["class"], strict=True))
    except (OSError, ValueError) as error:
        raise UserError(f"labels={labels}: can't be read as a CSV with the columns file and class ({error})") from error
    known = {file: (row, label) for row, file, label in zip(train.index, train.file, train.label, strict=True)}
    label_of: dict[int, int] = {}
    for file, name in wanted:
        if file not in known:
            raise UserError(f"labels={labels}: {file} is not a training slice of this split; label another one")
        row, truth = known[file]
        if not name:
            raise UserError(f"labels={labels}: {file} has no class yet; fill it in, or take the line out")
        if name not in classes:
            raise UserError(f"labels={labels}: {file} is labelled {name!r}; the classes are {', '.join(classes)}")
        label = classes.index(name)
        earlier = label_of.setdefault(row, label)
        if truth not in (-1, label):
            raise UserError(f"labels={labels}: {file} is labelled {name!r}, but the data says {classes[truth]!r}")
        if earlier != label:
            raise UserError(f"labels={labels}: {file} is labelled {classes[earlier]!r} and {name!r}; take one out")
    missing = {classes[label] for label in train.label if label >= 0} - {name for _, name in wanted}
    if missing:
        raise UserError(f"labels={labels}: no slice is labelled {min(missing)}; label at least one of every class")
    rows = np.array(sorted(label_of), np.int64)
    return rows, np.array([label_of[row] for row in rows], np.int64)
