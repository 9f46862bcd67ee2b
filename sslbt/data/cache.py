"""Slices read once: pixels in one memory-mapped file, a table beside it, one digest over both."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sslbt.data.files import fingerprint
from sslbt.data.ingest import ABOUT, MASKS, PIXELS, REFUSED, SIMILAR, TABLE, ingest
from sslbt.data.mapped import Mapped
from sslbt.data.normalise import SIDE
from sslbt.data.preprocess import resize
from sslbt.data.source import Source, at, cache_folder, locate, once
from sslbt.errors import UserError
from sslbt.terminal import progress

FORMAT = 4  # raise it when what the cache holds changes
TEXT = ("file", "patient", "family", "class", "plane", "sha256", "path")


@dataclass(frozen=True)
class Cache:
    """A prepared dataset.

    `table` has a row per slice: file, patient (empty where unknown), family, class, fold (the dataset's own, 0 where
    unknown), height, width, plane (empty where unknown), low and high (darkest and brightest pixel in its file), sha256
    (of pixels), path (its file's, within the source), tumour (share of the picture that its mask covers, NaN where
    there is none), and label (index into `classes`, -1 where unlabelled). Row i belongs to `pixels[i]`. `refused` lists
    what could not be used (path, reason); `similar` pairs of rows of different families whose pictures show the same
    (first, second, likeness). The digest is over what trainings depend on, which masks and paths are not.
    """

    pixels: np.ndarray  # (slices, 256, 256) uint8, memory-mapped
    table: pd.DataFrame
    refused: pd.DataFrame
    similar: pd.DataFrame
    digest: str
    synthetic: bool  # a slice or more is a phantom
    classes: tuple[str, ...]
    folder: Path

    @property
    def unknown_patients(self) -> int:
        """Slices of which nobody knows whose they are; each file of such counts as a family (`Source.anonymous`)."""
        return int((self.table.patient == "").sum())

    def masks(self, rows: np.ndarray) -> np.ndarray:
        """Where the tumours of these slices are, (rows, 256, 256) bool; nowhere where the file doesn't say."""
        packed = np.memmap(self.folder / MASKS, np.uint8, "r", shape=(len(self.table), SIDE, SIDE // 8))
        return np.unpackbits(packed[rows], axis=2).view(bool)

    def resized(self, size: int) -> Mapped:
        """All slices at a size, (slices, size, size); made once, beside the cache."""
        folder = once(self.folder.with_name(f"{self.folder.name}-{size}"), lambda folder: self._resize(folder, size))
        return Mapped.open(folder / PIXELS, (len(self.table), size, size))

    def _resize(self, folder: Path, size: int) -> None:
        parts = np.array_split(np.arange(len(self.table)), -(-len(self.table) // 64))
        with open(folder / PIXELS, "wb") as out:
            for rows in progress(parts, f"resizing to {size} x {size}", "batches of 64", len(parts)):
                out.write(self.load(rows, size).mul(255).round().to(torch.uint8).numpy().tobytes())

    def load(self, rows: np.ndarray, size: int) -> Tensor:
        """The slices of these rows, (rows, 1, size, size) float32 in [0, 1]."""
        parts = [
            resize(torch.from_numpy(self.pixels[part]).unsqueeze(1).float() / 255, size)
            for part in np.array_split(rows, max(1, len(rows) // 64))
        ]
        return torch.cat(parts)

    def with_classes(self, classes: tuple[str, ...]) -> "Cache":
        """The same slices, labelled by their place among a classifier's classes.

        Raises:
            UserError: the data hold a class that is not among them.
        """
        strange = [name for name in self.classes if name not in classes]
        if strange:
            raise UserError(
                f"the classifier tells {', '.join(classes)} apart; the data also hold {strange[0]}: leave its slices "
                "out, or without a class (annotations)"
            )
        return replace(self, table=_labelled(self.table, classes), classes=classes)


def prepare(source: Source) -> Cache:
    """Read every slice of a source into the cache, or open what an earlier call left there.

    Raises:
        UserError: the source or one of its files can't be used (with `on_bad=skip` the latter are left out and
            listed); nothing is left behind.
    """
    place = locate(source)
    known = [fingerprint(place), source.patient_pattern, source.on_bad, _content(source.annotations), source.anonymous]
    key = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]
    return _open(once(cache_folder() / f"cache-{FORMAT}-{key}", lambda folder: ingest(folder, place, source)))


def _content(annotations: str) -> str:
    try:
        return hashlib.sha256(at(annotations).read_bytes()).hexdigest() if annotations else ""
    except OSError as error:
        raise UserError(f"annotations={annotations}: can't be read ({error.strerror}); give a CSV file") from error


def _open(folder: Path) -> Cache:
    as_text = dict.fromkeys(TEXT, str)
    # A patient may be called "NA"; only a share may be missing.
    table = pd.read_csv(folder / TABLE, dtype=as_text, keep_default_na=False, na_values={"tumour": [""]})
    about = json.loads((folder / ABOUT).read_text())
    classes = tuple(about.pop("classes"))
    pixels = np.memmap(folder / PIXELS, np.uint8, "r", shape=(len(table), SIDE, SIDE))
    refused = pd.read_csv(folder / REFUSED, dtype=str, keep_default_na=False)
    similar = pd.read_csv(folder / SIMILAR)
    return Cache(pixels, _labelled(table, classes), refused, similar, classes=classes, folder=folder, **about)


def _labelled(table: pd.DataFrame, classes: tuple[str, ...]) -> pd.DataFrame:
    number = {name: i for i, name in enumerate(classes)}
    return table.assign(label=[number.get(name, -1) for name in table["class"]])
