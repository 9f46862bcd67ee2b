"""Slices in every form and what of them is in the cache: for the tests of reading data."""

import gzip
import io
import zipfile
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, uid

from sslbt.data.cache import Cache, prepare
from sslbt.data.matlab import USERBLOCK
from sslbt.data.normalise import normalise
from sslbt.data.source import Source
from sslbt.errors import UserError

BY_NAME = r"^(P\d+[A-Z]?)"


def noise(seed: int, shape: tuple[int, int] = (40, 31), top: int = 255) -> np.ndarray:
    """A picture like no other."""
    pixels = np.random.default_rng(seed).integers(0, top + 1, shape)
    pixels.flat[:2] = 0, top
    return pixels


def encoded(pixels: np.ndarray, form: str, **how: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form, **how)
    return out.getvalue()


def png(seed: int, shape: tuple[int, int] = (40, 31)) -> bytes:
    return encoded(noise(seed, shape).astype(np.uint8), "PNG")


def dicom(pixels: np.ndarray, patient: str = "") -> bytes:
    """An MR image of one frame or several."""
    file = Dataset()
    file.SOPClassUID, file.SOPInstanceUID = uid.MRImageStorage, "1.2.3"
    file.PatientID = patient
    file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.Rows, file.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        file.NumberOfFrames = len(pixels)
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 0
    file.PixelData = pixels.astype("<u2").tobytes()
    file["PixelData"].VR = "OW"
    file.ensure_file_meta()
    file.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    out = io.BytesIO()
    file.save_as(out, enforce_file_format=True)
    return out.getvalue()


def nifti(slices: np.ndarray) -> bytes:
    """A volume of axial slices (slice, height, width), each as it is shown."""
    voxels = slices.swapaxes(1, 2)[:, ::-1, ::-1].transpose(1, 2, 0)  # to the right, anterior, superior
    return gzip.compress(nibabel.Nifti1Image(voxels, np.diag([1.0, 1, 5, 1])).to_bytes())


def mat(**changed: object) -> bytes:
    """A file in the layout of the figshare dataset; None leaves a field out, a function writes it."""
    fields = {
        "PID": np.array([[ord(c)] for c in "MR017260F"], np.uint16),
        "image": noise(0).astype(np.int16).T,
        "label": np.array([[2.0]]),
        **changed,
    }
    out = io.BytesIO()
    with h5py.File(out, "w", userblock_size=512) as file:
        group = file.create_group("cjdata")
        for name, value in fields.items():
            if callable(value):
                value(group, name)
            elif value is not None:
                group[name] = value
    return USERBLOCK + out.getvalue()[512:]


def pages(*pictures: np.ndarray) -> bytes:
    first, *more = map(Image.fromarray, pictures)
    out = io.BytesIO()
    first.save(out, "TIFF", save_all=True, append_images=more)
    return out.getvalue()


def lay(folder: Path, contents: dict[str, bytes]) -> Path:
    for name, data in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def zipped(path: Path, contents: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)  # with no letter of the name changed
    return path


def left(home: Path) -> list[str]:
    """What lies in the cache, less the files that processes wait at for each other."""
    return [path.name for path in home.iterdir() if path.suffix != ".lock"] if home.exists() else []


def refused(home: Path, place: Path, **how: str) -> str:
    """The one line that stops everything; nothing may be left behind."""
    with pytest.raises(UserError) as caught:
        prepare(Source(str(place), **how))
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert left(home) == []
    return sentence


def check_rows(cache: Cache, expected: dict[str, np.ndarray]) -> None:
    """Every slice is there, in this order, and each row is that of its pixels."""
    assert list(cache.table.path) == list(expected)
    assert cache.pixels.shape == (len(expected), 256, 256)
    for row, pixels, original in zip(cache.table.itertuples(), cache.pixels, expected.values(), strict=True):
        np.testing.assert_array_equal(pixels, normalise(original))
        assert (row.height, row.width, row.low, row.high) == (*original.shape, original.min(), original.max())


def zip_of(folder: Path) -> Path:
    contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
    return zipped(folder.with_suffix(".zip"), contents)


GOOD = {f"{name}/P{n}_1.png": noise(n).astype(np.uint8) for n, name in ((1, "cyst"), (2, "glioma"), (9, "meningioma"))}
