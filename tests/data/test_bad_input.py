"""Every kind of bad input stops `prepare` with one sentence, or is left out and told if that is asked for."""

import io
import os
import resource
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from sslbt.data.cache import Cache, prepare
from sslbt.data.formats import read
from sslbt.data.matlab import USERBLOCK
from sslbt.data.reading import normalise
from sslbt.data.source import Source
from sslbt.errors import UserError

pytestmark = pytest.mark.usefixtures("home")
PIXELS = np.random.default_rng(0).integers(0, 900, (24, 24)).astype(np.int16)


def mat(**changed: object) -> bytes:
    """A file of the dataset with other fields; None leaves one out."""
    codes = np.array([[ord(c)] for c in "P77"], np.uint16)
    fields = {"image": PIXELS.T, "label": np.array([[2.0]]), "PID": codes} | changed
    out = io.BytesIO()
    with h5py.File(out, "w", userblock_size=512) as file:
        for name, value in fields.items():
            if value is not None:
                file[f"cjdata/{name}"] = value
    return USERBLOCK + out.getvalue()[512:]


def chunk_bomb() -> bytes:
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        file.create_dataset("cjdata/image", (9000, 9000), "i2", chunks=(9000, 9000), compression="gzip", fillvalue=3)
        file["cjdata/image"][0, 0] = 1
    return out.getvalue()


def with_nan() -> np.ndarray:
    pixels = PIXELS.astype(np.float32)
    pixels[3, 4] = np.nan
    return pixels


BAD = {
    "truncated": (lambda: mat()[:1500], "truncated or not a file of the dataset"),
    "empty": (lambda: b"", "no .mat, DICOM, NIfTI, PNG, JPEG or TIFF"),
    "not HDF5": (lambda: b"this is a letter, not a slice", "no .mat, DICOM, NIfTI, PNG, JPEG or TIFF"),
    "no image": (lambda: mat(image=None), "image is missing"),
    "no label": (lambda: mat(label=None), "label is missing"),
    "no PID": (lambda: mat(PID=None), "PID is missing"),
    "label 7": (lambda: mat(label=np.array([[7.0]])), "label 7 is none of 1 (meningioma)"),
    "NaN": (lambda: mat(image=with_nan()), "not finite"),
    "constant": (lambda: mat(image=np.full((24, 24), 7, np.int16)), "all pixels are equal"),
    "empty PID": (lambda: mat(PID=np.array([[0], [0]], np.uint16)), "(PID) is empty"),
    "a bomb": (chunk_bomb, "more than can be read"),
}


def refused(source: Path, home: Path, **options: str) -> str:
    """The sentence; nothing of the slices may be left in the cache."""
    with pytest.raises(UserError) as caught:
        prepare(Source(str(source), **options))
    assert "\n" not in str(caught.value)
    assert [path.name for path in home.glob("*") if path.suffix != ".lock"] == []
    return str(caught.value)


def check_pixels_belong_to_their_rows(cache: Cache, folder: Path) -> None:
    for path, pixels in zip(cache.table.path, cache.pixels, strict=True):
        expected = normalise(next(read((folder / path).read_bytes(), path)).pixels)
        np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("kind", BAD)
def test_one_bad_file_stops_or_is_left_out(
    kind: str, slices: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, sentence = BAD[kind]
    (slices / "5.mat").write_bytes(make())
    said = refused(slices, home)
    assert said.startswith("5.mat: ")
    assert sentence in said
    assert "on_bad=skip" in said
    cache = prepare(Source(str(slices), on_bad="skip"))
    assert list(cache.table.file) == [f"{number}.mat" for number in range(1, 13) if number != 5]
    assert list(cache.refused.path) == ["5.mat"]
    assert sentence in cache.refused.reason[0]
    assert "left out: 5.mat: " in capsys.readouterr().err
    check_pixels_belong_to_their_rows(cache, slices)


def test_a_copy_of_a_file(slices: Path, home: Path) -> None:
    shutil.copy(slices / "3.mat", slices / "30.mat")
    assert refused(slices, home).startswith("30.mat: the same picture as 3.mat, of the same patient")
    cache = prepare(Source(str(slices), on_bad="skip"))
    assert len(cache.table) == 12
    assert list(cache.refused.path) == ["30.mat"]


def test_a_patient_with_two_labels(slices: Path, home: Path, write_slice: Callable[..., Path]) -> None:
    write_slice(slices / "6.mat", 2, "100360")  # 12.mat, of the same patient, has label 1
    said = refused(slices, home)
    assert "patient 100360 has slices of several classes: 12.mat (meningioma) and 6.mat (glioma)" in said
    cache = prepare(Source(str(slices), on_bad="skip"))
    assert "100360" not in set(cache.table.patient)
    assert set(cache.refused.path) == {"6.mat", "12.mat"}
    check_pixels_belong_to_their_rows(cache, slices)


def test_nothing_but_bad_files(tmp_path: Path, home: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "1.mat").write_bytes(b"")
    assert "holds no slice that can be used" in refused(folder, home, on_bad="skip")


def test_names_in_a_zip_that_climb_out(tmp_path: Path, home: Path, slices: Path) -> None:
    outside = tmp_path / "a" / "b"
    outside.mkdir(parents=True)
    with zipfile.ZipFile(outside / "evil.zip", "w") as archive:
        for number in range(1, 7):
            archive.writestr(f"../../{number}.mat", (slices / f"{number}.mat").read_bytes())
    before = set(tmp_path.rglob("*.mat"))
    assert len(prepare(Source(str(outside / "evil.zip"))).table) == 6
    assert set(tmp_path.rglob("*.mat")) == before


def test_a_zip_bomb(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sslbt.data.files.MAX_FILE", 2**20)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.mat", bytes(2**24))
    assert os.path.getsize(tmp_path / "bomb.zip") < 2**15
    assert "1.mat: 16777216 bytes unpacked, more than" in refused(tmp_path / "bomb.zip", home)


def test_zips_within_zips_within_zips(tmp_path: Path, home: Path) -> None:
    data = b"x"
    for depth in range(4):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr(f"{depth}.zip" if depth else "1.mat", data)
        data = out.getvalue()
    (tmp_path / "deep.zip").write_bytes(data)
    assert "zips nested deeper than 2" in refused(tmp_path / "deep.zip", home)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission(slices: Path, home: Path) -> None:
    (slices / "closed").mkdir(mode=0)
    assert "closed: can't be read (Permission denied)" in refused(slices, home)


def test_a_full_disk(slices: Path, home: Path, write_slice: Callable[..., Path]) -> None:
    for number in range(13, 60):
        write_slice(slices / f"{number}.mat", 1, f"500{number}")
    code = f"""
import signal, sys
from sslbt.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.exit(main(["prepare", "--data", {str(slices)!r}]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=slices.parent,
        # MLflow's database fits into this, the pixels of 59 slices don't.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2_500_000, 2_500_000)),
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "free space" in done.stderr.splitlines()[-1]
    assert not list(home.glob("cache-*"))
    assert not list(home.glob(".partial-*"))


def test_sixteen_bit_and_colour_pictures_of_any_class(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("metastasis", "no tumour", "glioma", "x-1", "lymphoma"):
        for patient in ("P1", "P2"):
            folder = tmp_path / "in" / label / f"{label} {patient}"
            folder.mkdir(parents=True)
            Image.fromarray(rng.integers(0, 65536, (40, 30)).astype(np.uint16)).save(folder / "deep.png")
            Image.fromarray(rng.integers(0, 4096, (20, 60)).astype(np.uint16)).save(folder / "twelve.tif")
            Image.fromarray(rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)).save(folder / "colour.jpg")
    cache = prepare(Source(str(tmp_path / "in")))
    assert cache.classes == ("glioma", "lymphoma", "metastasis", "no tumour", "x-1")
    assert len(cache.table) == 30
    assert set(cache.table.patient[cache.table["class"] == "glioma"]) == {"glioma P1", "glioma P2"}
    assert cache.table.high.max() > 60_000
    check_pixels_belong_to_their_rows(cache, tmp_path / "in")
