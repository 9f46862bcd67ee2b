"""From a source's files to the files of the cache: read, identify, refuse, write."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from sslbt.data.duplicates import similar_pairs
from sslbt.data.files import File, count, iterate
from sslbt.data.identity import class_order, family, file_of, identify, short_names
from sslbt.data.matlab import read_folds
from sslbt.data.normalise import SIDE
from sslbt.data.reading import Refused, read_files
from sslbt.data.source import Source
from sslbt.errors import UserError
from sslbt.terminal import progress, say

PIXELS, MASKS, TABLE, REFUSED = "pixels.bin", "masks.bin", "table.csv", "refused.csv"
SIMILAR, ABOUT = "similar.csv", "about.json"
CONTENT = ["file", "patient", "family", "class", "fold", "height", "width", "plane", "low", "high", "sha256"]
FOLDS = "cvind.mat"
SAID = 10  # refusals the terminal shows; all are in the table


def ingest(folder: Path, place: Path, source: Source) -> None:
    """Write what `cache.Cache` holds into a folder.

    Args:
        folder: where to write; it exists.
        place: the folder or zip to read.
        source: how to tell whose slices they are, and what to do with what can't be used.

    Raises:
        UserError: a slice can't be used and `on_bad` is `stop`, or none can.
    """
    refusals = _Refusals(source.on_bad == "skip")
    folds: dict[int, int] = {}
    table = pd.DataFrame(_read(folder, place, folds, refusals), columns=FOUND)
    everybody = identify(table, source.annotations, source.patient_pattern, source.anonymous)
    table["patient"], table["class"] = everybody.patients, everybody.classes
    refusals.add(*everybody.refused)
    refusals.add(*_contradictions(table[~table.path.isin(refusals.paths)]))
    refusals.add(*_copies(table[~table.path.isin(refusals.paths) & (table.patient != "")]))
    refusals.close()

    kept = ~table.path.isin(refusals.paths).to_numpy()
    if not kept.any():
        raise UserError(f"{place}: holds no slice that can be used; is it the right folder, the whole download?")
    _keep(folder / PIXELS, kept)
    _keep(folder / MASKS, kept)
    synthetic = bool(table.synthetic[kept].any())
    table = table[kept].reset_index(drop=True)
    table["file"] = short_names(list(table.path))
    table["family"] = table.patient.map(family).where(table.patient != "", table.file.map(file_of))
    table["fold"] = [folds.get(_number(path), 0) for path in table.path]
    content = table[CONTENT].to_csv(index=False, lineterminator="\n")  # on Windows too: same digest
    table[[*CONTENT, "path", "tumour"]].to_csv(folder / TABLE, index=False)

    pixels = np.memmap(folder / PIXELS, np.uint8, "r", shape=(len(table), SIDE, SIDE))
    similar_pairs(pixels, table.family.to_numpy()).to_csv(folder / SIMILAR, index=False)
    refusals.table.to_csv(folder / REFUSED, index=False)
    about = {
        "digest": hashlib.sha256(content.encode()).hexdigest()[:16],
        "synthetic": synthetic,
        "classes": class_order(list(table["class"])),
    }
    (folder / ABOUT).write_text(json.dumps(about))


FOUND = ["path", "sha256", "height", "width", "low", "high", "patient", "label", "plane", "synthetic", "tumour"]


def _read(folder: Path, place: Path, folds: dict[int, int], refusals: "_Refusals") -> Iterator[tuple]:
    """A row a slice; its pixels and its mask go to a file each, fold numbers into `folds`."""

    def slices() -> Iterator[File]:
        for name, reader in progress(iterate(place), f"reading {place.name}", "files", count(place)):
            if PurePosixPath(name).name == FOLDS:
                folds.update(enumerate(read_folds(reader(), name).tolist(), 1))
            else:
                yield name, reader

    with open(folder / PIXELS, "wb") as pixels, open(folder / MASKS, "wb") as masks:
        for found in read_files(slices()):
            if isinstance(found, Refused):
                refusals.add(found)
            else:
                pixels.write(found.pixels.tobytes())
                masks.write(found.mask.tobytes())
                yield tuple(getattr(found, name) for name in FOUND)


class _Refusals:
    """What can't be used: the first stops everything, unless such are to be skipped."""

    def __init__(self, skip: bool) -> None:
        self.skip = skip
        self.all: list[Refused] = []
        self.counted = 0  # less the expected ones, which nobody need be told of

    def add(self, *refused: Refused) -> None:
        for one in refused:
            if not one.expected:
                if not self.skip:
                    raise UserError(f"{one.reason} (on_bad=skip leaves it out)")
                self.counted += 1
                if self.counted <= SAID:
                    say(f"left out: {one.reason}")
            self.all.append(one)

    def close(self) -> None:
        if self.counted > SAID:
            say(f"left out: {self.counted - SAID} more")

    @property
    def paths(self) -> set[str]:
        return {one.path for one in self.all}

    @property
    def table(self) -> pd.DataFrame:
        return pd.DataFrame([(one.path, one.reason) for one in self.all], columns=["path", "reason"])


def _contradictions(table: pd.DataFrame) -> Iterator[Refused]:
    """Slices of patients with two classes, and paths that two slices have (in two zips of one folder)."""
    for path in table.path[table.path.duplicated()]:
        yield Refused(path, f"{path}: two files are called so, in different zips; rename one of them")
    labelled = table[(table["class"] != "") & (table.patient != "")]
    for patient, own in labelled.groupby("patient"):
        names = class_order(list(own["class"]))
        if len(names) > 1:
            examples = " and ".join(f"{own.path[own['class'] == name].iloc[0]} ({name})" for name in names)
            reason = f"patient {patient} has slices of several classes: {examples}; correct the labels"
            yield from (Refused(path, f"{path}: {reason}") for path in table.path[table.patient == patient])


def _copies(table: pd.DataFrame) -> Iterator[Refused]:
    """Every further slice of a patient with the very pixels of an earlier one."""
    first = table.drop_duplicates(["patient", "sha256"]).set_index(["patient", "sha256"]).path
    further = table[table.duplicated(["patient", "sha256"])]
    for path, *picture in zip(further.path, further.patient, further.sha256, strict=True):
        original = first[tuple(picture)]
        yield Refused(path, f"{path}: the same picture as {original}, of the same patient; remove one of them")


def _keep(file: Path, kept: np.ndarray) -> None:
    """Take out what a file holds of slices that turned out to be unusable after they were read."""
    if kept.all():
        return
    whole = np.memmap(file, np.uint8, "r").reshape(len(kept), -1)
    with open(file.with_suffix(".kept"), "wb") as out:
        for row in np.flatnonzero(kept):
            out.write(whole[row].tobytes())
    os.replace(file.with_suffix(".kept"), file)


def _number(path: str) -> int:
    stem = PurePosixPath(path).stem
    return int(stem) if re.fullmatch("[0-9]{1,9}", stem) else 0
