"""Bad files, one at a time among good ones: they stop everything, or are left out and said."""

import gzip
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from makers import BY_NAME, GOOD, check_rows, dicom, encoded, lay, mat, nifti, noise, pages, png, refused, zip_of

from sslbt.data import ingest
from sslbt.data.cache import prepare
from sslbt.data.reading import FEW
from sslbt.data.source import Source

pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")  # outside of tests it is silent


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
    "tiny": ("glioma/P5_1.png", png(5, (15, 200)), "15 x 200 pixels; 16 x 16 to 8000 x 8000 can be read"),
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
