import errno
import gzip
import io
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, uid

from sslbt.data import files, ingest, reading
from sslbt.data.cache import Cache, prepare
from sslbt.data.matlab import USERBLOCK
from sslbt.data.reading import FEW, normalise
from sslbt.data.source import Source
from sslbt.data.splits import make_split
from sslbt.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")  # outside of tests it is silent

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
BY_NAME = r"^(P\d+[A-Z]?)"
FIVE = ("meningioma", "glioma", "abscess", "grade 2", "grade 10")  # in the order of a prepared dataset


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


# Good data of every form.

NAMES = [f"{name}/P{patient}_{i}" for patient, name in enumerate(sorted(FIVE), 1) for i in range(2)]
NAMES.sort(key=lambda name: files.natural(name))
FORMS: dict[str, tuple[type, int, Callable[[np.ndarray], bytes]]] = {
    "8 bits.png": (np.uint8, 255, lambda pixels: encoded(pixels, "PNG")),
    "16 bits.png": (np.uint16, 65535, lambda pixels: encoded(pixels, "PNG")),
    "12 bits in 16.png": (np.uint16, 4095, lambda pixels: encoded(pixels, "PNG")),
    "16 bits.tif": (np.uint16, 65535, lambda pixels: encoded(pixels, "TIFF")),
    "fractions.tiff": (np.float32, 7, lambda pixels: encoded(pixels, "TIFF")),
    "12 bits.dcm": (np.uint16, 4095, dicom),
    "12 bits": (np.uint16, 4095, dicom),
    "a slice.nii.gz": (np.int16, 30000, lambda pixels: nifti(pixels[None])),
}


@pytest.mark.parametrize("pack", [lay, lambda place, contents: zipped(place / "download.zip", contents)])
@pytest.mark.parametrize("form", FORMS)
def test_folders_of_five_classes_in_every_form(form: str, pack: Callable, home: Path, tmp_path: Path) -> None:
    dtype, top, encode = FORMS[form]
    ending = "".join(Path(form).suffixes)
    pictures = {
        f"{name}{ending}": noise(seed, (30 + 7 * seed, 45), top).astype(dtype) for seed, name in enumerate(NAMES)
    }
    pack(tmp_path / "in", {name: encode(pixels) for name, pixels in pictures.items()})
    cache = prepare(Source(str(tmp_path / "in"), patient_pattern=BY_NAME))
    check_rows(cache, pictures)
    assert cache.classes == FIVE
    for row in cache.table.itertuples():
        assert (row.file, cache.classes[row.label]) == (Path(row.path).name, Path(row.path).parent.name)
        assert (row.patient, row.family, row.fold) == (row.file.partition("_")[0], row.file.partition("_")[0], 0)
        assert row.plane == ("axial" if encode is dicom or "nii" in form else "")
    assert not len(cache.refused)
    assert not len(cache.similar)
    assert not cache.synthetic


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_is_read_as_pillow_does(mode: str, home: Path, tmp_path: Path) -> None:
    contents = {}
    for seed, name in enumerate(NAMES):
        out = io.BytesIO()
        Image.fromarray(noise(seed).astype(np.uint8)).convert(mode).save(out, "JPEG", quality=80)
        contents[f"{name}.jpg"] = out.getvalue()
    cache = prepare(Source(str(lay(tmp_path / "in", contents)), patient_pattern=BY_NAME))
    check_rows(cache, {name: np.array(Image.open(io.BytesIO(data)).convert("L")) for name, data in contents.items()})


def test_forms_sizes_and_scales_may_be_mixed(home: Path, tmp_path: Path, write_slice) -> None:
    deep = noise(1, (200, 90), 65535).astype(np.uint16)
    pictures = {"cyst/P1_1.png": noise(0, (16, 300)).astype(np.uint8), "cyst/P1_2.tif": deep}
    lay(tmp_path / "in", {"cyst/P1_1.png": encoded(pictures["cyst/P1_1.png"], "PNG")})
    lay(tmp_path / "in", {"cyst/P1_2.tif": encoded(deep, "TIFF"), "cyst/P2_1.dcm": dicom(deep // 16)})
    write_slice(tmp_path / "in" / "cyst" / "P3_1.mat", 2, "MR1")
    cache = prepare(Source(str(tmp_path / "in"), patient_pattern=BY_NAME))
    check_rows(
        cache,
        {
            **dict(zip(cache.table.path[:3], [*pictures.values(), deep // 16], strict=True)),
            "cyst/P3_1.mat": cache_of(tmp_path / "in" / "cyst" / "P3_1.mat"),
        },
    )
    assert list(cache.table["class"]) == ["cyst", "cyst", "cyst", "glioma"]  # a .mat says its own
    assert list(cache.table.patient) == ["P1", "P1", "P2", "P3"]


def cache_of(path: Path) -> np.ndarray:
    return reading.read(path.read_bytes(), path.name).__next__().pixels


def test_a_tiff_of_several_pages_is_several_slices_of_a_patient(home: Path, tmp_path: Path) -> None:
    scans = {
        f"{name}/P{n}.tif": noise(n, (60, 40), 65535).astype(np.uint16).reshape(3, 20, 40)
        for n, name in enumerate(("cyst", "glioma"), 1)
    }
    lay(tmp_path / "in", {name: pages(*pictures) for name, pictures in scans.items()})
    cache = prepare(Source(str(tmp_path / "in"), patient_pattern=r"^(P\d+)\.tif$"))
    check_rows(cache, {f"{name}#{i}": pixels for name, own in scans.items() for i, pixels in enumerate(own, 1)})
    assert list(cache.table.file) == ["P1.tif#1", "P1.tif#2", "P1.tif#3", "P2.tif#1", "P2.tif#2", "P2.tif#3"]
    assert list(cache.table.patient) == ["P1"] * 3 + ["P2"] * 3


def test_dicom_with_a_csv_of_classes(home: Path, tmp_path: Path) -> None:
    slices = noise(0, (120, 20), 4095).astype(np.uint16).reshape(6, 20, 20)
    contents = {"DICOM/PA0/IM0": dicom(slices[0], "MR 1"), "DICOM/PA0/IM1": dicom(slices[1], "MR 1")}
    contents |= {"DICOM/PA1/IM0": dicom(slices[2:5], "MR 2"), "DICOM/PA2/1.2.840.7": dicom(slices[5], "MR 3")}
    lay(tmp_path / "in", contents | {"DICOMDIR": dicom(slices[0]), "README": b"a text"})
    rows = ["DICOM/PA0/IM0;cyst", "DICOM\\PA0\\IM1;cyst", "./DICOM/PA1/IM0;glioma", "DICOM/PA1/IM0#2;"]
    (tmp_path / "labels.csv").write_text("\n".join(["file;class", *rows]))
    cache = prepare(Source(str(tmp_path / "in"), str(tmp_path / "labels.csv")))
    names = ["PA0/IM0", "PA0/IM1", "PA1/IM0#1", "PA1/IM0#2", "PA1/IM0#3", "PA2/1.2.840.7"]
    check_rows(cache, {f"DICOM/{name}": pixels for name, pixels in zip(names, slices, strict=True)})
    assert list(cache.table.patient) == ["MR 1"] * 2 + ["MR 2"] * 3 + ["MR 3"]
    assert list(cache.table["class"]) == ["cyst"] * 2 + ["glioma"] * 3 + [""]
    assert list(cache.table.label) == [1, 1, 0, 0, 0, -1]
    assert cache.classes == ("glioma", "cyst")


def volume_of(seed: int) -> np.ndarray:
    """Five slices, of which the first and the last two are empty."""
    slices = np.zeros((5, 30, 24), np.int16)
    slices[1:3] = noise(seed, (60, 24), 900).reshape(2, 30, 24)
    return slices


def test_nifti_with_a_csv_leaves_out_empty_slices_without_a_word(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    volumes = {f"BraTS-{n}/t1c.nii.gz": volume_of(n) for n in (2, 10)}
    lay(tmp_path / "in", {name: nifti(slices) for name, slices in volumes.items()})
    (tmp_path / "labels.csv").write_text(
        "file,patient,class\nBraTS-2/t1c.nii.gz,2,cyst\nBraTS-10/t1c.nii.gz,10,\nBraTS-10/t1c.nii.gz#3,,glioma\n"
    )
    cache = prepare(Source(str(tmp_path / "in"), str(tmp_path / "labels.csv")))
    check_rows(cache, {f"{name}#{i}": slices[i - 1] for name, slices in volumes.items() for i in (2, 3)})
    assert list(cache.table.patient) == ["2", "2", "10", "10"]
    assert list(cache.table["class"]) == ["cyst", "cyst", "", "glioma"]
    assert list(cache.refused.path) == [f"{name}#{i}" for name in volumes for i in (1, 4, 5)]
    assert set(cache.refused.reason.str.partition(": ")[2]) == {
        "all pixels are equal; an empty slice can't be classified"
    }
    assert "left out" not in capsys.readouterr().err


def test_a_zip_written_with_backslashes_has_folders_too(home: Path, tmp_path: Path) -> None:
    place = zipped(tmp_path / "a.zip", {f"all\\{name}.png".replace("/", "\\"): png(i) for i, name in enumerate(NAMES)})
    cache = prepare(Source(str(place), patient_pattern=BY_NAME))
    assert list(cache.table.path) == [f"all/{name}.png" for name in NAMES]
    assert cache.classes == FIVE


# Bad files, one at a time among good ones.

GOOD = {f"{name}/P{n}_1.png": noise(n).astype(np.uint8) for n, name in ((1, "cyst"), (2, "glioma"), (9, "meningioma"))}
HALF = noise(7, (60, 60), 4000)
WHOLE = {
    "png": encoded(HALF.astype(np.uint16), "PNG"),
    "jpg": encoded((HALF // 16).astype(np.uint8), "JPEG"),
    "tif": encoded(HALF.astype(np.uint16), "TIFF", compression="tiff_lzw"),
    "mat": mat(image=HALF.astype(np.int16)),
    "dcm": dicom(HALF),
    "nii.gz": nifti(np.stack([HALF.astype(np.int16)] * 3)),
    "nii": gzip.decompress(nifti(np.stack([HALF.astype(np.int16)] * 3))),
}


def flat_png(side: int) -> bytes:
    """A black picture of side x side pixels in few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side + 7) // 8 + 1) * side)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def hdf5_bomb(group: h5py.Group, name: str, shape: tuple[int, int], **how: object) -> None:
    """A field of few numbers whose only block unpacks to 60 megabytes."""
    field = group.create_dataset(name, shape, "u2", chunks=shape, compression="gzip", **how)
    field.id.write_direct_chunk((0, 0), zlib.compress(bytes(60_000_000)))


def hole(value: float) -> np.ndarray:
    pixels = noise(7).astype(np.float32)
    pixels[5, 5] = value
    return pixels


def widthless() -> bytes:
    """A TIFF of two pages, the second of which lacks the field for its width."""
    data = bytearray(pages(*noise(5, (80, 30)).astype(np.uint8).reshape(2, 40, 30)))
    at = data.rindex(struct.pack("<HHII", 256, 4, 1, 30))
    data[at : at + 2] = struct.pack("<H", 257)
    return bytes(data)


BAD: dict[str, tuple[str, bytes, str]] = {
    **{f"empty {end}": (f"glioma/P5_1.{end}", b"", "") for end in WHOLE if end != "dcm"},
    **{f"half a {end}": (f"glioma/P5_1.{end}", data[: len(data) // 2], "") for end, data in WHOLE.items()},
    **{f"the start of a {end}": (f"glioma/P5_1.{end}", data[:150], "") for end, data in WHOLE.items()},
    "a web page": ("glioma/P5_1.png", b"<html>404</html>", "no .mat, DICOM, NIfTI, PNG, JPEG or TIFF"),
    "not HDF5": ("glioma/P5_1.mat", b"\0" * 512 + b"no HDF5" * 99, "no .mat, DICOM"),
    "MATLAB v5": ("glioma/P5_1.mat", b"MATLAB 5.0 MAT-file".ljust(600), "MATLAB v5 file; save it with -v7.3"),
    **{f"no {name}": ("glioma/P5_1.mat", mat(**{name: None}), f"{name} is missing") for name in ("image", "label")},
    "label 7": ("glioma/P5_1.mat", mat(label=np.array([[7.0]])), "label 7 is none of 1 (meningioma), 2"),
    "label NaN": ("glioma/P5_1.mat", mat(label=np.array([[np.nan]])), "label nan is none of 1"),
    "PID no text": ("glioma/P5_1.mat", mat(PID=np.full((2, 1), 7, np.uint16)), "the patient number (PID) is no text"),
    "mask of another picture": (
        "glioma/P5_1.mat",
        mat(tumorMask=np.zeros((40, 31), np.uint8)),
        "tumorMask of shape (31, 40), image of (40, 31); correct the mask",
    ),
    "in colours": (
        "glioma/P5_1.png",
        encoded(noise(5, (40, 31, 3)).astype(np.uint8), "PNG"),
        "a picture in colours; MRI slices are grey",
    ),
    "NaN in a .mat": ("glioma/P5_1.mat", mat(image=hole(np.nan)), "holds pixels that are not finite"),
    "infinity in a TIFF": ("glioma/P5_1.tif", encoded(hole(-np.inf), "TIFF"), "holds pixels that are not finite"),
    "too wide a range": (
        "glioma/P5_1.tif",
        encoded(hole(3e38) - hole(0) * 1e36, "TIFF"),
        "holds pixels that are not finite",
    ),
    "constant": ("glioma/P5_1.png", encoded(np.full((40, 31), 9, np.uint8), "PNG"), "all pixels are equal"),
    "constant DICOM": ("glioma/P5_1.dcm", dicom(np.full((40, 30), 9)), "all pixels are equal"),
    "tiny": ("glioma/P5_1.png", png(5, (15, 200)), "15 x 200 pixels; 16 x 16 to 64 megapixels can be read"),
    "PNG bomb": ("glioma/P5_1.png", flat_png(9000), "9000 x 9000 pixels is more than can be read"),
    "larger PNG bomb": ("glioma/P5_1.png", flat_png(20_000), ""),
    **{
        f"{name} bomb in HDF5{' shuffled' * shuffled}": (
            "glioma/P5_1.mat",
            mat(**{name: lambda group, name, s=shape, b=shuffled: hdf5_bomb(group, name, s, shuffle=b)}),
            "a damaged block of pixels",
        )
        for name, shape in (("image", (40, 40)), ("PID", (4, 1)), ("label", (1, 1)), ("tumorMask", (31, 40)))
        for shuffled in (False, True)
    },
    "no class": ("P5_1.png", png(5), "no class is known; put it into a folder of its class"),
    "no patient": ("glioma/scan.png", png(5), "finds no patient in its name; correct one of them"),
    "class that is no word": ("(glioma)/P5_1.png", png(5), "class '(glioma)': a letter or digit, then"),
    "copy": (
        "cyst/P1_copy.png",
        encoded(GOOD["cyst/P1_1.png"], "PNG"),
        "the same picture as cyst/P1_1.png, of the same p",
    ),
    "copy in another form": (
        "cyst/P1_copy.tif",
        encoded(GOOD["cyst/P1_1.png"], "TIFF"),
        "the same picture as cyst/P1_1",
    ),
    "page without a width": ("glioma/P5_1.tif", widthless(), "damaged PNG, JPEG or TIFF"),
    "truncated page": (
        "glioma/P5_1.tif",
        pages(*noise(5, (90, 30), 255).astype(np.uint8).reshape(3, 30, 30))[:-400],
        "",
    ),
}


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return lay(tmp_path / "in", {name: encoded(pixels, "PNG") for name, pixels in GOOD.items()})


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_stops_everything(what: str, good: Path, home: Path) -> None:
    name, data, reason = BAD[what]
    lay(good, {name: data})
    sentence = refused(home, good, patient_pattern=BY_NAME)
    assert sentence.startswith(f"{name}: ")
    assert reason in sentence
    assert sentence.endswith(" (on_bad=skip leaves it out)")


@pytest.mark.parametrize(
    ("pack", "what"),
    [(lambda folder: folder, what) for what in BAD]
    + [(lambda folder: zip_of(folder), what) for what in ("empty png", "label 7", "no patient", "copy")],
)
def test_a_bad_file_is_left_out_if_asked_and_said(
    what: str, pack: Callable[[Path], Path], good: Path, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name, data, reason = BAD[what]
    place = pack(lay(good, {name: data}))
    cache = prepare(Source(str(place), patient_pattern=BY_NAME, on_bad="skip"))
    check_rows(cache, GOOD)
    assert list(cache.table.patient) == ["P1", "P2", "P9"]
    assert cache.classes == ("meningioma", "glioma", "cyst")
    ((path, why),) = cache.refused.itertuples(index=False)
    assert path == name
    assert why.startswith(f"{name}: ")
    assert reason in why
    said = [line for line in capfd.readouterr().err.splitlines() if name in line]
    assert said == [f"left out: {why}"]
    again = prepare(Source(str(place), patient_pattern=BY_NAME, on_bad="skip"))
    assert list(again.refused.reason) == [why]


def zip_of(folder: Path) -> Path:
    contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
    return zipped(folder.with_suffix(".zip"), contents)


def test_rows_stay_beside_their_pixels_whatever_is_left_out(home: Path, tmp_path: Path) -> None:
    pictures = {
        f"{name}/P{n}{name[0]}_{i}.png": noise(100 * n + i).astype(np.uint8)
        for name in ("cyst", "glioma")
        for n in range(3)
        for i in range(4)
    }
    contents = {name: encoded(pixels, "PNG") for name, pixels in pictures.items()}
    bad = {
        "cyst/P0c_2.png": b"",
        "cyst/P1c_0.png": contents["cyst/P1c_0.png"][:200],
        "glioma/P2g_3.png": contents["glioma/P2g_1.png"],
    }
    strange = {"cyst/P9g_1.png": png(91), "glioma/P9g_2.png": png(92), "cyst/nobody.png": png(93), "alone.png": png(94)}
    lay(tmp_path / "in", contents | bad | strange)
    cache = prepare(Source(str(tmp_path / "in"), patient_pattern=r"^(P\d+[a-z])_", on_bad="skip"))
    assert sorted(cache.refused.path) == sorted(bad | strange)
    check_rows(cache, {name: pixels for name, pixels in pictures.items() if name not in bad})
    assert list(cache.table["class"]) == [path.partition("/")[0] for path in cache.table.path]


def test_many_bad_files_are_counted_and_all_listed(good: Path, home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    empty = np.zeros((30, 20, 20), np.uint16)
    empty[-1] = noise(3, (20, 20))
    lay(good, {"cyst/P0_1.tif": pages(*empty)})  # 29 empty slices, of which nobody need be told
    lay(good, {f"glioma/P5_{i}.png": b"" for i in range(14)})
    cache = prepare(Source(str(good), patient_pattern=BY_NAME, on_bad="skip"))
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("left out")]
    assert [line.split()[2] for line in said[:-1]] == [f"glioma/P5_{i}.png:" for i in range(ingest.SAID)]
    assert said[-1] == "left out: 4 more"
    assert len(cache.refused) == 29 + 14
    check_rows(cache, {"cyst/P0_1.tif#30": empty[-1], **GOOD})


@pytest.mark.parametrize("count", [1, FEW + 40])
def test_bad_files_alone_are_no_data(count: int, home: Path, tmp_path: Path) -> None:
    place = lay(tmp_path / "in", {f"glioma/P{i}_1.png": b"no picture" for i in range(count)})
    sentence = refused(home, place, patient_pattern=BY_NAME, on_bad="skip")
    assert sentence == f"{place}: holds no slice that can be used; is it the right folder, the whole download?"


def test_one_bad_file_of_many_stops_the_others(home: Path, tmp_path: Path) -> None:
    place = lay(tmp_path / "in", {f"glioma/P{i}_1.png": png(i, (16, 16)) for i in range(FEW + 60)})
    lay(place, {"glioma/P80_1.png": b""})
    assert refused(home, place, patient_pattern=BY_NAME).startswith("glioma/P80_1.png: ")
    cache = prepare(Source(str(place), patient_pattern=BY_NAME, on_bad="skip"))
    assert list(cache.refused.path) == ["glioma/P80_1.png"]
    check_rows(cache, {f"glioma/P{i}_1.png": noise(i, (16, 16)).astype(np.uint8) for i in range(FEW + 60) if i != 80})


# Slices of nobody knows whom, to judge a classifier by.


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


# Where the tumours are.


def test_masks_stay_with_their_slices_whatever_is_left_out(home: Path, good: Path) -> None:
    shapes = {"abscess/P3_1.mat": (40, 31), "cyst/P5_1.mat": (64, 64), "glioma/P6_1.mat": (300, 500)}
    masks = {}
    for seed, (name, shape) in enumerate(shapes.items(), 30):
        mask = np.zeros(shape, bool)
        mask[5 + seed % 3 :, 8 : 20 + seed % 3] = True
        lay(good, {name: mat(image=noise(seed, shape).astype(np.int16).T, tumorMask=mask.T.astype(np.uint8))})
        masks[name] = reading.shrink(mask)
    lay(good, {"abscess/P0_1.png": b"", "cyst/P1_2.mat": mat(label=np.array([[7.0]]))})
    cache = prepare(Source(str(good), patient_pattern=BY_NAME, on_bad="skip"))
    assert len(cache.refused) == 2
    found = cache.masks(np.arange(len(cache.table)))
    assert (found.shape, found.dtype) == ((6, 256, 256), bool)
    for path, tumour, mask in zip(cache.table.path, cache.table.tumour, found, strict=True):
        if path in masks:
            np.testing.assert_array_equal(mask, masks[path])
            assert tumour == pytest.approx(mask.mean())
            assert tumour > 0
        else:
            assert np.isnan(tumour)
            assert not mask.any()
    np.testing.assert_array_equal(cache.masks(np.array([4, 0])), found[[4, 0]])
    assert cache.masks(np.array([], int)).shape == (0, 256, 256)


def test_a_slice_left_out_after_all_takes_its_mask_along(home: Path, tmp_path: Path) -> None:
    masks = np.zeros((4, 40, 31), bool)
    for number, mask in enumerate(masks):
        mask[10 + number : 20, 5:9] = True
        image = noise(0 if number == 1 else number).astype(np.int16)  # the second is a copy of the first
        lay(tmp_path / "in", {f"{number}.mat": mat(image=image.T, tumorMask=mask.T.astype(np.uint8))})
    cache = prepare(Source(str(tmp_path / "in"), on_bad="skip"))
    assert list(cache.table.file) == ["0.mat", "2.mat", "3.mat"]
    np.testing.assert_array_equal(cache.masks(np.arange(3)), [reading.shrink(masks[n]) for n in (0, 2, 3)])


def test_an_empty_mask_is_none(home: Path, tmp_path: Path) -> None:
    lay(tmp_path / "in", {"1.mat": mat(tumorMask=np.zeros((31, 40), np.uint8))})
    cache = prepare(Source(str(tmp_path / "in")))
    assert np.isnan(cache.table.tumour[0])
    assert not cache.masks(np.arange(1)).any()


def test_a_changed_mask_is_read_again_and_leaves_the_digest(home: Path, tmp_path: Path) -> None:
    mask = np.zeros((31, 40), np.uint8)
    caches = []
    for size in (4, 6):
        mask[3 : 3 + size, 7:20] = 1
        lay(tmp_path / "in", {"1.mat": mat(tumorMask=mask)})
        caches.append(prepare(Source(str(tmp_path / "in"))))
    before, after = caches
    assert before.masks(np.arange(1)).sum() < after.masks(np.arange(1)).sum()
    assert before.digest == after.digest  # no training depends on it


# One patient, two labels; one picture, two patients; one name, two files.


def test_a_patient_with_two_labels(home: Path, good: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lay(good, {"glioma/P1_2.png": png(11), "glioma/P1_3.png": png(12)})
    sentence = refused(home, good, patient_pattern=BY_NAME)
    reason = "patient P1 has slices of several classes: glioma/P1_2.png (glioma) and cyst/P1_1.png (cyst); correct"
    assert sentence.startswith(f"cyst/P1_1.png: {reason} the labels")
    cache = prepare(Source(str(good), patient_pattern=BY_NAME, on_bad="skip"))
    own = ["cyst/P1_1.png", "glioma/P1_2.png", "glioma/P1_3.png"]
    assert list(cache.refused.path) == own
    said = capfd.readouterr().err
    for path in own:
        assert f"left out: {path}: {reason}" in said
    check_rows(cache, {name: pixels for name, pixels in GOOD.items() if name not in own})
    assert cache.classes == ("meningioma", "glioma")  # no other cyst is left


def test_a_patient_with_one_label_and_unlabelled_slices_is_no_contradiction(home: Path, good: Path) -> None:
    lay(good, {"more/P1_2.png": png(11)})
    (good.parent / "labels.csv").write_text("file,class\n" + "".join(f"{name},{name.split('/')[0]}\n" for name in GOOD))
    cache = prepare(Source(str(good), str(good.parent / "labels.csv"), BY_NAME))
    assert list(cache.table["class"]) == ["cyst", "glioma", "meningioma", ""]


def test_two_labels_of_one_family_are_none_of_one_patient(home: Path, good: Path) -> None:
    lay(good, {"cyst/P7A_1.png": png(11), "glioma/P7B_1.png": png(12)})
    cache = prepare(Source(str(good), patient_pattern=BY_NAME))
    assert list(cache.table.family[cache.table.patient.isin(["P7A", "P7B"])]) == ["P7", "P7"]


def test_one_picture_of_two_patients_is_kept_and_listed(home: Path, good: Path) -> None:
    same = encoded(GOOD["glioma/P2_1.png"], "PNG")
    lay(good, {"meningioma/P5_1.png": same, "glioma/P2B_1.png": same})  # P2B may be P2, seen again
    cache = prepare(Source(str(good), patient_pattern=BY_NAME))
    assert list(cache.table.patient) == ["P1", "P2B", "P2", "P5", "P9"]
    assert not len(cache.refused)
    assert sorted(zip(cache.similar["first"], cache.similar["second"], strict=True)) == [(1, 3), (2, 3)]
    np.testing.assert_allclose(cache.similar.likeness, 1, atol=1e-3)


def test_pairs_are_rows_of_what_is_kept(home: Path, good: Path) -> None:
    lay(good, {"abscess/P0_1.png": b"", "cyst/P0_1.png": png(0), "glioma/P0_1.png": png(0)})
    lay(good, {"meningioma/P5_1.png": encoded(GOOD["meningioma/P9_1.png"], "PNG")})
    cache = prepare(Source(str(good), patient_pattern=BY_NAME, on_bad="skip"))
    ((first, second, _),) = cache.similar.itertuples(index=False)
    assert [cache.table.path[first], cache.table.path[second]] == ["meningioma/P5_1.png", "meningioma/P9_1.png"]


def test_one_name_in_two_zips_of_a_folder(home: Path, good: Path) -> None:
    zipped(good / "part 1.zip", {"glioma/P5_1.png": png(21), "glioma/P6_1.png": png(22)})
    zipped(good / "part 2.zip", {"glioma/P5_1.png": png(23), "glioma/P7_1.png": png(24)})
    reason = "glioma/P5_1.png: two files are called so, in different zips"
    assert refused(home, good, patient_pattern=BY_NAME).startswith(reason)
    cache = prepare(Source(str(good), patient_pattern=BY_NAME, on_bad="skip"))
    assert set(cache.refused.path) == {"glioma/P5_1.png"}
    own = [noise(22).astype(np.uint8), noise(24).astype(np.uint8)]
    check_rows(cache, {**GOOD, **dict(zip(["glioma/P6_1.png", "glioma/P7_1.png"], own, strict=True))})


# Zips that are made to do harm.


def lie(place: Path, name: str, size: int) -> None:
    """Let the zip say of a member that it unpacks to `size` bytes."""
    data = bytearray(place.read_bytes())
    at = data.rindex(name.encode()) - 46 + 24  # into its entry of the central directory
    data[at : at + 4] = struct.pack("<I", size)
    place.write_bytes(data)


@pytest.mark.parametrize(
    ("size", "reason"), [(1000, "can't be unpacked ("), (2**30, f"{2**30} bytes unpacked, more tha")]
)
def test_a_member_that_unpacks_to_more_than_it_says_or_may(size: int, reason: str, home: Path, good: Path) -> None:
    place = zip_of(lay(good, {"pituitary/P99_1.png": bytes(60_000_000)}))
    lie(place, "pituitary/P99_1.png", size)
    name = f"{place}/pituitary/P99_1.png"
    assert refused(home, place, patient_pattern=BY_NAME).startswith(f"{name}: {reason}")
    cache = prepare(Source(str(place), patient_pattern=BY_NAME, on_bad="skip"))
    check_rows(cache, GOOD)
    assert list(cache.refused.path) == ["pituitary/P99_1.png"]
    assert cache.refused.reason[0].startswith(f"{name}: {reason}")


@pytest.mark.parametrize("on_bad", ["stop", "skip"])
def test_zips_nested_too_deep_or_damaged_are_no_data(on_bad: str, home: Path, tmp_path: Path) -> None:
    inner = zipped(tmp_path / "3.zip", {"glioma/P1_1.png": png(1)}).read_bytes()
    middle = zipped(tmp_path / "2.zip", {"3.zip": inner, "glioma/P2_1.png": png(2)}).read_bytes()
    place = zipped(tmp_path / "1.zip", {"2.zip": middle, "glioma/P3_1.png": png(3)})
    how = {"patient_pattern": BY_NAME, "on_bad": on_bad}
    assert refused(home, place, **how) == (f"{place}/2.zip: zips nested deeper than 2; unpack it and give the folder")
    place.write_bytes(place.read_bytes()[:-30])
    assert refused(home, place, **how).startswith(f"{place}: damaged or not a zip")


OUTSIDE = [
    "../../glioma/P11_1.png",
    "/glioma/P12_1.png",
    "..\\..\\glioma\\P13_1.png",
    "C:\\glioma\\P14_1.png",
    "glioma/../../../P15_1.png",
    "//host/share/P16_1.png",
    "~/P17_1.png",
]


def test_names_that_climb_out_of_a_zip_write_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "deep" / "er" / "a.zip"
    contents = {name: encoded(pixels, "PNG") for name, pixels in GOOD.items()}
    zipped(place, contents | {name: png(i) for i, name in enumerate(OUTSIDE, 11)})
    monkeypatch.chdir(place.parent)
    monkeypatch.setenv("HOME", str(tmp_path / "home of the user"))
    refused(home, place, patient_pattern=BY_NAME)  # since '..' is no class
    cache = prepare(Source(str(place), patient_pattern=BY_NAME, on_bad="skip"))
    assert {*cache.table.path, *cache.refused.path} == {*GOOD, *(name.replace("\\", "/") for name in OUTSIDE)}
    kept = cache.table.set_index("path").loc[list(GOOD)]
    assert list(kept["class"]) == [name.partition("/")[0] for name in GOOD]
    assert all(name[0].isalnum() for name in cache.classes)
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and home not in path.parents]
    assert outside == [place]
    assert not Path("/glioma").exists()


# A system that says no.


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file grows beyond this, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Data that need 2.6 MB in the cache."""
    contents = {f"{name}/P{n}_1.png": png(n) for n, name in enumerate(["cyst", "glioma"] * 20)}
    return lay(tmp_path / "in", contents)


def test_a_full_disk_leaves_nothing(many: Path, home: Path) -> None:
    for size in (0, 100_000, 2_600_000):
        with files_up_to(size), pytest.raises(OSError, match="File too large"):
            prepare(Source(str(many), patient_pattern=BY_NAME))
        assert left(home) == []
    assert len(prepare(Source(str(many), patient_pattern=BY_NAME)).table) == 40


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A disk of so many bytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = []

    def mount(size: int) -> Path:
        if not (AS_ROOT and shutil.which("mount")):
            pytest.skip("only root may mount a disk")
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place], capture_output=True)
        if made.returncode:
            pytest.skip(f"no disk can be mounted here: {made.stderr!r}")
        mounted.append(place)
        return place

    yield mount
    for one in mounted:
        subprocess.run(["umount", one], check=True)


@pytest.mark.parametrize("room", [300_000, 40 * 256 * 256 + 4096], ids=["for a few slices", "for the slices alone"])
def test_a_disk_that_is_too_small_leaves_nothing(
    room: int, many: Path, small_disk: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = small_disk(room) / "home"
    monkeypatch.setenv("SSLBT_HOME", str(home))
    with pytest.raises(OSError, match="No space left") as caught:
        prepare(Source(str(many), patient_pattern=BY_NAME))
    assert caught.value.errno == errno.ENOSPC
    assert left(home) == []


FULL = """
import resource, sys
from sslbt.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
if __name__ == "__main__":
    sys.exit(main())
"""


def test_a_full_disk_is_one_sentence_of_the_command_line(many: Path, home: Path, tmp_path: Path) -> None:
    (tmp_path / "full.py").write_text(FULL)
    words = ["prepare", "--data", many, "--patient-pattern", BY_NAME]
    own = {"SSLBT_HOME": str(home), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")} | own
    done = subprocess.run(
        [sys.executable, tmp_path / "full.py", *words], capture_output=True, text=True, env=environment
    )
    said = [line for line in done.stderr.splitlines() if line.startswith("sslbt")]
    assert said == ["sslbt: the disk: File too large; free space or change its permissions, then run it again"]
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert left(home) == []


NOBODY = """
import os, sys
from sslbt.data.cache import prepare
from sslbt.data.source import Source
from sslbt.errors import UserError
os.chdir(sys.argv[1])
prepare(Source("all", patient_pattern=sys.argv[2]))  # imports all there is, which a user without rights may not reach
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
for place in ("no folder", "no file"):
    for on_bad in ("stop", "skip"):
        try:
            cache = prepare(Source(place, patient_pattern=sys.argv[2], on_bad=on_bad))
            print(*cache.table.path, *cache.refused.reason, sep="|")
        except UserError as error:
            print(error)
"""


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody may enter, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    for path in folder.rglob("*"):
        path.chmod(0o700)
    shutil.rmtree(folder)


@pytest.mark.skipif(os.name == "nt", reason="has other permissions")
def test_a_folder_or_file_without_permission(public: Path, good: Path) -> None:
    for place, closed in (("all", ""), ("no folder", "glioma"), ("no file", "glioma/P2_1.png")):
        shutil.copytree(good, public / place)
        (public / place / closed).chmod(0o755 if place == "all" else 0)
    (public / "home").mkdir()
    (public / "home").chmod(0o777)
    (public / "nobody.py").write_text(NOBODY)
    environment = os.environ | {"SSLBT_HOME": str(public / "home")}
    words = [sys.executable, public / "nobody.py", public, BY_NAME]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    folder, file = (
        f"{public}/{closed}: can't be read (Permission denied); check the file and its mode"
        for closed in ("no folder/glioma", "no file/glioma/P2_1.png")
    )
    assert done.stdout.splitlines() == [
        folder,
        folder,  # what it holds is not known, so it can't be left out
        f"{file} (on_bad=skip leaves it out)",
        f"cyst/P1_1.png|meningioma/P9_1.png|{file}",
    ]
    assert f"left out: {file}" in done.stderr.splitlines()
    assert len(left(public / "home")) == 2  # of all, and of what was left


def test_damaged_folds_are_never_left_out(home: Path, slices: Path) -> None:
    (slices / "cvind.mat").write_bytes(b"damaged")
    for on_bad in ("stop", "skip"):
        assert refused(home, slices, on_bad=on_bad).startswith("cvind.mat: not the dataset's cvind.mat")


def test_stop_and_skip_are_prepared_apart(home: Path, good: Path) -> None:
    for on_bad in ("skip", "stop", "skip"):
        assert len(prepare(Source(str(good), patient_pattern=BY_NAME, on_bad=on_bad)).table) == 3
    assert len(left(home)) == 2
    lay(good, {"cyst/P4_1.png": b""})
    prepare(Source(str(good), patient_pattern=BY_NAME, on_bad="skip"))
    with pytest.raises(UserError, match=r"cyst/P4_1\.png"):
        prepare(Source(str(good), patient_pattern=BY_NAME))


def test_annotations_that_change_are_read_again(home: Path, good: Path) -> None:
    table = good.parent / "labels.csv"
    for name in ("cyst", "abscess"):
        table.write_text("file,class\n" + "".join(f"{path},{name}\n" for path in GOOD))
        assert prepare(Source(str(good), str(table), BY_NAME)).classes == (name,)
    assert len(left(home)) == 2
    table.write_text("file,class\nlost.png,cyst\n")
    with pytest.raises(UserError, match=r"lost\.png is no file of the data"):
        prepare(Source(str(good), str(table), BY_NAME, "skip"))
    with pytest.raises(UserError, match=r"typo\.csv: can't be read"):
        prepare(Source(str(good), str(table.with_name("typo.csv")), BY_NAME))
    assert len(left(home)) == 2
