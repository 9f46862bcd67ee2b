"""Slices read once: pixels in one memory-mapped file, a table beside it, one digest over both."""

import hashlib
import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sslbt.data.formats import read_folds, read_mat
from sslbt.data.phantom import make_sample
from sslbt.data.preprocess import SIDE, Preprocess, resize
from sslbt.data.sources import fingerprint, iterate
from sslbt.errors import UserError
from sslbt.terminal import progress

CLASSES = ("meningioma", "glioma", "pituitary")
FORMAT = 1  # raise it when what the cache holds changes
SAMPLE = "sample"


@dataclass(frozen=True)
class Cache:
    """A prepared dataset.

    `table` has a row per slice: file, patient, family, label (index into `classes`), fold (the dataset's own,
    0 where unknown), height, width. Row i belongs to `pixels[i]`.
    """

    pixels: np.ndarray  # (slices, 256, 256) uint8, memory-mapped
    table: pd.DataFrame
    digest: str
    synthetic: bool  # a slice or more is a phantom
    classes: tuple[str, ...] = CLASSES

    def load(self, rows: np.ndarray, size: int) -> Tensor:
        """The slices of these rows, (rows, 1, size, size) float32 in [0, 1]."""
        parts = [
            resize(torch.from_numpy(self.pixels[part]).unsqueeze(1).float() / 255, size)
            for part in np.array_split(rows, max(1, len(rows) // 64))
        ]
        return torch.cat(parts)


def cache_folder() -> Path:
    """Where prepared data and unfinished trainings live: $SSLBT_HOME, else ~/.cache/sslbt."""
    return Path(os.environ.get("SSLBT_HOME") or Path.home() / ".cache" / "sslbt")


def locate(data: str) -> Path:
    """The folder or zip behind the parameter `data`; makes the synthetic sample if it is asked for and missing."""
    if data != SAMPLE:
        return Path(data).expanduser().resolve()
    folder = cache_folder() / f"sample-{FORMAT}"
    if not folder.exists():
        with _written_whole(folder) as partial:
            make_sample(partial)
    return folder


def prepare(data: str) -> Cache:
    """Read every slice of `data` into the cache, or open what an earlier call left there.

    Raises:
        UserError: the source or one of its files can't be used; nothing is left behind.
    """
    source = locate(data)
    folder = cache_folder() / f"cache-{FORMAT}-{fingerprint(source)}"
    if not folder.exists():
        with _written_whole(folder) as partial:
            _fill(partial, source)
    return _open(folder)


class _written_whole:
    """A folder that appears under its final name only once it is complete."""

    def __init__(self, final: Path) -> None:
        self.final = final

    def __enter__(self) -> Path:
        self.final.parent.mkdir(parents=True, exist_ok=True)
        self.partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=self.final.parent))
        return self.partial

    def __exit__(self, kind: type | None, *rest: object) -> None:
        if kind is None and not self.final.exists():  # another process may have been faster
            os.replace(self.partial, self.final)
        shutil.rmtree(self.partial, ignore_errors=True)


def family(patient: str) -> str:
    """The patient number less one trailing letter: MR024780B and MR024780D may be one person."""
    return re.sub(r"(?<=\d)[A-Za-z]$", "", patient)


def _fill(folder: Path, source: Path) -> None:
    preprocess = Preprocess()
    rows, folds, synthetic = [], np.zeros(0, int), False
    with open(folder / "pixels.bin", "wb") as out:
        for name, read in progress(iterate(source), f"reading {source.name}", "files"):
            if Path(name).name == "cvind.mat":
                folds = read_folds(read(), name)
                continue
            if not name.lower().endswith(".mat"):
                raise UserError(f"{name}: only the dataset's .mat files can be prepared; remove it or convert it")
            found = read_mat(read(), name)
            raw = torch.from_numpy(found.pixels.astype(np.float32))
            pixels = (preprocess(raw[None])[0, 0] * 255).round().byte().numpy()
            out.write(pixels.tobytes())
            synthetic |= found.synthetic
            height, width = found.pixels.shape
            rows.append((Path(name).name, found.patient, family(found.patient), found.label - 1, height, width))
    table = pd.DataFrame(rows, columns=["file", "patient", "family", "label", "height", "width"])
    if table.empty:
        raise UserError(f"{source}: holds no slice, only {len(folds)} fold numbers; is it the whole download?")
    if table.file.duplicated().any():
        raise UserError(f"{source}: holds {table.file[table.file.duplicated()].iloc[0]} twice; remove one of them")
    table["fold"] = [_fold(folds, name) for name in table.file]
    table.to_csv(folder / "table.csv", index=False, lineterminator="\n")  # on Windows too: same digest
    content = hashlib.sha256((folder / "table.csv").read_bytes())
    with open(folder / "pixels.bin", "rb") as f:
        for block in iter(lambda: f.read(2**24), b""):
            content.update(block)
    about = {"digest": content.hexdigest()[:16], "synthetic": synthetic}
    (folder / "about.json").write_text(json.dumps(about))


def _fold(folds: np.ndarray, name: str) -> int:
    number = int(Path(name).stem) if Path(name).stem.isdecimal() else 0
    return int(folds[number - 1]) if 0 < number <= len(folds) else 0


def _open(folder: Path) -> Cache:
    text = {"file": str, "patient": str, "family": str}
    table = pd.read_csv(folder / "table.csv", dtype=text, keep_default_na=False)  # "NA" is a patient like any other
    pixels = np.memmap(folder / "pixels.bin", np.uint8, "r", shape=(len(table), SIDE, SIDE))
    return Cache(pixels, table, **json.loads((folder / "about.json").read_text()))
