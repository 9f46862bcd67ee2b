"""A stranger's slices: a few real ones where there are any, else phantoms, in every form that the pages name."""

import os
import shutil
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from makers import dicom
from PIL import Image

from sslbt.data.formats import decode
from sslbt.data.matlab import CLASSES
from sslbt.data.phantom import make_sample

PATIENTS, SLICES = 20, 6  # of each class, of each patient


def lay(home: Path, here: Path) -> None:
    """Fill the home folder and the current one."""
    figshare = home / "figshare"
    real = Path(os.environ.get("SSLBT_FIGSHARE", Path.home() / "figshare"))
    if len(list(real.glob("*.mat"))) > 1000:
        _few(real, figshare)
    else:
        make_sample(figshare, patients=3 * PATIENTS, size=128)
    numbers: dict[str, str] = {}
    rows = []
    for file in sorted(figshare.glob("[0-9]*.mat"), key=lambda file: int(file.stem)):
        pid, label = _facts(file)
        patient = numbers.setdefault(pid, f"P{len(numbers) + 1}")
        pixels = decode(file.read_bytes(), file.name)
        shown = np.interp(pixels, (pixels.min(), pixels.max()), (0, 255)).astype(np.uint8)
        picture = home / "png" / label / f"{patient}_{file.stem}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shown).save(picture)
        other = home / "dicom" / f"{file.stem}.dcm"
        other.parent.mkdir(exist_ok=True)
        other.write_bytes(dicom(shown.astype(np.uint16), patient))
        rows.append({"file": other.name, "patient": patient, "class": label})
    pd.DataFrame(rows).to_csv(home / "labels.csv", index=False)

    pictures = sorted((home / "png").rglob("*.png"))[::20]
    for folder in (home / "pictures", home / "slices", here / "png", here / "slices"):
        folder.mkdir()
        for picture in pictures:
            shutil.copy(picture, folder)
    shutil.copy(pictures[0], here / "slice.png")
    shutil.copy(next(iter(sorted(figshare.glob("[0-9]*.mat")))), here / "1.mat")
    shutil.copy(next(iter(sorted((home / "dicom").iterdir()))), here / "slice.dcm")
    pd.DataFrame({"path": [str(picture) for picture in pictures]}).to_csv(here / "list.csv", index=False)
    encoded = {"image": [picture.read_bytes() for picture in pictures]}
    pd.DataFrame(encoded).to_parquet(here / "pictures.parquet")
    with zipfile.ZipFile(here / "scans.zip", "w") as scans:
        for picture in pictures:
            scans.write(picture, picture.name)


def fill_in(csv: Path, home: Path) -> None:
    """Label what was suggested, as a person would."""
    table = pd.read_csv(csv, dtype=str)
    for row, name in enumerate(table["file"]):
        number = Path(name).stem.rpartition("_")[2]  # of P12_3.png and of 3.mat
        table.loc[row, "class"] = _facts(home / "figshare" / f"{number}.mat")[1]
    table.to_csv(csv, index=False)


def _few(real: Path, folder: Path) -> None:
    """Copy some patients of each class, and the folds."""
    folder.mkdir(parents=True)
    shutil.copy(real / "cvind.mat", folder)
    patients: dict[str, set[str]] = defaultdict(set)
    count: Counter[str] = Counter()
    for file in sorted(real.glob("[0-9]*.mat"), key=lambda file: int(file.stem)):
        pid, label = _facts(file)
        if pid not in patients[label] and len(patients[label]) == PATIENTS:
            continue
        patients[label].add(pid)
        count[pid] += 1
        if count[pid] <= SLICES:
            shutil.copy(file, folder)


def _facts(file: Path) -> tuple[str, str]:
    """Patient and class."""
    with h5py.File(file) as opened:
        pid = "".join(chr(int(code)) for code in np.ravel(opened["cjdata/PID"]))
        return pid, CLASSES[int(np.ravel(opened["cjdata/label"])[0]) - 1]
