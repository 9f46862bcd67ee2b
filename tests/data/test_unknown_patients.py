"""Slices of nobody knows whom, to judge a classifier by."""

from pathlib import Path

import numpy as np
import pytest
from makers import dicom, lay, mat, nifti, noise, png, refused

from sslbt.data.cache import prepare
from sslbt.data.source import Source
from sslbt.data.splits import make_split
from sslbt.errors import UserError


@pytest.fixture
def nobodys(tmp_path: Path) -> Path:
    """Pictures in folders of their classes, one of them twice, a file without a number, and one patient."""
    same = png(3)
    contents = {"cyst/a.png": png(1), "cyst/b.png": png(2), "glioma/a.png": same, "glioma/c.png": same}
    contents |= {"glioma/d.mat": mat(PID=None), "glioma/e.dcm": dicom(noise(4)), "cyst/f.dcm": dicom(noise(5), "MR7B")}
    return lay(
        tmp_path / "in", contents | {"cyst/scan.nii.gz": nifti(noise(6, (60, 24)).astype(np.int16).reshape(2, 30, 24))}
    )


def test_slices_of_unknown_patients_are_refused_unless_asked_for(home: Path, nobodys: Path) -> None:
    sentence = refused(home, nobodys)
    assert sentence.startswith("cyst/a.png: whose slice is it? Give patient_pattern")
    cache = prepare(Source(str(nobodys), on_bad="skip"))
    assert (list(cache.table.patient), cache.unknown_patients) == (["MR7B"], 0)
    assert len(cache.refused) == 8
    assert prepare(Source(str(nobodys), anonymous=True)).folder != cache.folder


def test_each_file_of_an_unknown_patient_counts_as_a_family(home: Path, nobodys: Path) -> None:
    cache = prepare(Source(str(nobodys), anonymous=True))
    table = cache.table.set_index("path")
    assert len(cache.refused) == 0  # one picture twice is no copy of a patient's, nor two classes a contradiction
    assert cache.unknown_patients == 8
    assert set(table.patient) == {"", "MR7B"}
    assert dict(table.family) == {
        "cyst/a.png": "cyst/a.png",
        "cyst/b.png": "cyst/b.png",
        "cyst/f.dcm": "MR7",
        "cyst/scan.nii.gz#1": "cyst/scan.nii.gz",
        "cyst/scan.nii.gz#2": "cyst/scan.nii.gz",
        "glioma/a.png": "glioma/a.png",
        "glioma/c.png": "glioma/c.png",
        "glioma/d.mat": "glioma/d.mat",
        "glioma/e.dcm": "glioma/e.dcm",
    }
    assert [cache.table.path[row] for row in cache.similar.iloc[0, :2]] == ["glioma/a.png", "glioma/c.png"]
    split = make_split(cache.table, "none", cache.classes)
    assert set(split.table.part) == {"test"}


def test_a_pattern_that_fits_nobody_is_a_mistake_still(home: Path, nobodys: Path) -> None:
    with pytest.raises(UserError, match="finds no patient in its name"):
        prepare(Source(str(nobodys), patient_pattern="^(P[0-9]+)", anonymous=True))


def test_slices_of_no_class_are_judged_by_nobody(home: Path, nobodys: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,class\ncyst/b.png,cyst\nglioma/c.png,glioma\n")
    cache = prepare(Source(str(nobodys), str(tmp_path / "labels.csv"), anonymous=True))
    assert list(cache.table.path[cache.table.label >= 0]) == ["cyst/b.png", "glioma/c.png"]
    split = make_split(cache.table, "none", cache.classes)
    assert list(cache.table.path[split.rows("test")]) == ["cyst/b.png", "glioma/c.png"]
