"""Who and what every slice is: patient and class, from the file itself, its name, its folder, or a CSV."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath

import pandas as pd

from sslbt.data.files import natural
from sslbt.data.matlab import CLASSES
from sslbt.data.reading import Refused
from sslbt.data.source import at
from sslbt.data.spreadsheet import read_csv
from sslbt.errors import UserError


@dataclass(frozen=True)
class Identities:
    """Patient and class of every slice, and the slices of which they can't be told (empty in the first two)."""

    patients: list[str]
    classes: list[str]  # empty also where nobody has labelled the slice
    refused: list[Refused]


def identify(table: pd.DataFrame, annotations: str, patient_pattern: str, anonymous: bool = False) -> Identities:
    """Tell patient and class of every slice.

    The patient is, first come first served: what the CSV says; what the pattern finds in the path; what the file says
    (PID, PatientID); the folder between class and slice. The class: what the CSV says; what the file says; the
    outermost folder, unless there is a CSV with classes.

    Args:
        table: all slices of the source: path, and patient and label as the file says, empty where it doesn't.
        annotations: path of a CSV with the column `file` and `patient`, `class` or both; "" for none. A file is
            named by its path in the source or, where no two are alike, by its last part; a slice of a volume by
            `#` and its number after that. A slice it doesn't name, or names without a class, is unlabelled.
        patient_pattern: regular expression whose first group (else all of it) is the patient's number; "" for none.
        anonymous: nobody need say whose a slice is; such has an empty patient instead of being refused.

    Raises:
        UserError: the CSV or the pattern can't be used, or the CSV names a file that is not there.
    """
    paths = list(table.path)
    given = _Annotations(annotations, paths) if annotations else None
    pattern = _compiled(patient_pattern) if patient_pattern else None
    found = Identities([], [], [])
    for path, patient, label, folders in zip(paths, table.patient, table.label, _folders(paths), strict=True):
        try:
            patient, label = _identity(path, patient, label, folders, given, pattern)
            if not patient and not anonymous:
                raise UserError(
                    f"{path}: whose slice is it? Give patient_pattern, such as '^(P[0-9]+)_' for P12_3.png, or "
                    "annotations, a CSV with the columns file, patient and class; a split by patient needs it"
                )
        except UserError as error:
            patient, label = "", ""
            found.refused.append(Refused(path, str(error)))
        found.patients.append(patient)
        found.classes.append(label)
    return found


def class_order(names: Sequence[str]) -> tuple[str, ...]:
    """Each name once: those of the figshare dataset in its order, then the others by name."""
    known = [name for name in CLASSES if name in names]
    return (*known, *sorted(set(names) - {*CLASSES, ""}, key=natural))


def family(patient: str) -> str:
    """The patient number less one trailing letter: MR024780B and MR024780D may be one person."""
    return re.sub(r"(?<=\d)[A-Za-z]$", "", patient)


def short_names(paths: Sequence[str]) -> list[str]:
    """The last parts of these paths, if no two are alike; else the paths, less the folders around all of them.

    So a zip that holds a folder gives its files the names that the folder gives them.
    """
    parts = [path.split("/") for path in paths]
    names = [own[-1] for own in parts]
    if len(set(names)) == len(names):
        return names
    shared = _shared([own[:-1] for own in parts])
    return ["/".join(own[shared:]) for own in parts]


def _identity(
    path: str,
    patient: str,
    label: str,
    folders: tuple[str, ...],
    given: "_Annotations | None",
    pattern: re.Pattern[str] | None,
) -> tuple[str, str]:
    noted_patient, noted_label = given.of(path) if given else ("", None)
    patient = (
        noted_patient or (_matched(pattern, path) if pattern else "") or patient or (folders[1] if folders[1:] else "")
    )
    if noted_label is not None:
        label = noted_label
    else:
        label = label or (folders[0] if folders else "")
        if not label:
            raise UserError(
                f"{path}: no class is known; put it into a folder of its class, or give annotations (a CSV)"
            )
    if not re.fullmatch(r"(\w[\w .-]{0,59})?", label):
        raise UserError(
            f"{path}: class {label!r}: a letter or digit, then up to 59 more, spaces, '.', '-' and '_' are allowed"
        )
    if not patient.isprintable():
        raise UserError(f"{path}: the patient's number is no printable text; correct it")
    return patient, label


def _folders(paths: Sequence[str]) -> list[tuple[str, ...]]:
    """The folders above each file, less those around all of them (but the innermost where there are no others)."""
    parents = [PurePosixPath(path).parts[:-1] for path in paths]
    shared = _shared(parents)
    if len(set(parents)) == 1:
        shared = max(0, shared - 1)
    return [parent[shared:] for parent in parents]


def _shared(parents: Sequence[Sequence[str]]) -> int:
    """How many folders, from the outermost, are around all files."""
    return sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, zip(*parents, strict=False)))


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(f"patient_pattern={pattern}: no regular expression ({error}); try '^(P[0-9]+)_'") from error


def _matched(pattern: re.Pattern[str], path: str) -> str:
    """The file's name is tried first, then its whole path; the number of a slice within its file is no part of it."""
    file = file_of(path)
    found = pattern.search(PurePosixPath(file).name) or pattern.search(file)
    patient = found.group(1 if pattern.groups else 0) if found else ""
    if not patient:
        raise UserError(f"{path}: patient_pattern={pattern.pattern} finds no patient in its name; correct one of them")
    return patient


class _Annotations:
    """A CSV of file, patient and class, looked up by slice."""

    def __init__(self, path: str, slices: Sequence[str]) -> None:
        table = _read_columns(at(path))
        self.labels = "class" in table
        self.rows: dict[str, tuple[str, str]] = {}  # by path
        known = {name for slice_ in slices for name in _names(slice_)}
        by_last_part: dict[str, list[str]] = {}
        for name in known:
            by_last_part.setdefault(PurePosixPath(name).name, []).append(name)
        for row in table.to_dict("records"):
            file = row["file"].strip().replace("\\", "/").removeprefix("./")
            meant = [file] if file in known else by_last_part.get(file, [])
            if not meant:
                raise UserError(f"{path}: {file or 'an empty name'} is no file of the data; correct or remove the row")
            if len(meant) > 1:
                raise UserError(f"{path}: {file} is the name of several files; give their paths in the data")
            if meant[0] in self.rows:
                raise UserError(f"{path}: {meant[0]} is in two rows; remove one")
            self.rows[meant[0]] = row.get("patient", "").strip(), row.get("class", "").strip()

    def of(self, slice_: str) -> tuple[str, str | None]:
        """Patient ("" where not said) and class ("" where not labelled, None where the CSV has no classes)."""
        patient, label = "", ""
        for name in _names(slice_):  # a slice of a volume adds to what its file's row says
            own_patient, own_label = self.rows.get(name, ("", ""))
            patient, label = patient or own_patient, label or own_label
        return patient, label if self.labels else None


def _names(slice_: str) -> tuple[str, ...]:
    """The paths by which a CSV may call a slice, the more exact one first."""
    return tuple(dict.fromkeys((slice_, file_of(slice_))))


def file_of(slice_: str) -> str:
    """The file that a slice lies in."""
    file, mark, number = slice_.rpartition("#")
    return file if mark and number.isdecimal() else slice_


def _read_columns(path: Path) -> pd.DataFrame:
    """The columns file and patient, class or both."""
    try:
        table = read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read as a CSV in UTF-8 ({str(error).strip()}); save it as one") from error
    names = list(table.columns)
    used = [name for name in names if name in ("file", "patient", "class")]
    if "file" not in used or len(used) < 2 or len(used) > len(set(used)):
        raise UserError(f"{path}: has the columns {', '.join(names)}; it needs file, and patient, class or both, once")
    return table[used]
