"""MATLAB v7.3 files in the layout of the figshare brain tumour dataset (doi 10.6084/m9.figshare.1512427).

They are HDF5 files with a struct `cjdata`: image, label, PID, tumorBorder, tumorMask.
"""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import h5py
import numpy as np
from h5py.h5z import FILTER_DEFLATE as DEFLATE
from h5py.h5z import FILTER_SHUFFLE as SHUFFLE
from isal import isal_zlib

from sslbt.data.slices import MAX_PIXELS, Slice, first_line
from sslbt.errors import UserError

# What h5py, numpy and isal raise where a file is damaged or holds something else than they expect.
DAMAGED = cast(type[Exception], isal_zlib.error)  # its stub takes the class for an exception
UNREADABLE = (
    *(OSError, LookupError, RuntimeError, ValueError, TypeError, AttributeError, OverflowError, EOFError),
    DAMAGED,
)

CLASSES = ("meningioma", "glioma", "pituitary")  # the dataset's labels 1, 2, 3

FEW = 1000  # numbers of a label or letters of a PID; a field of millions takes no more space in a file

USERBLOCK = b"MATLAB 7.3 MAT-file, HDF5 schema 1.00 .".ljust(116) + b"\0" * 8 + b"\x00\x02IM" + b"\0" * 384


def read_mat(data: bytes, name: str) -> Slice:
    """The slice of one file: whose it is, what it shows and where, as far as the file says.

    Raises:
        UserError: truncated or not MATLAB v7.3, image or label is missing, the label is not 1, 2 or 3, the PID is no
            text, or the tumour mask is of another size than the image.
    """
    with _fields(data, name) as fields:
        pixels = _numbers(_field(fields, "image"), data).T  # HDF5 holds MATLAB's columns as rows
        label = float(_numbers(_field(fields, "label", FEW), data).flat[0])
        patient = _text(fields, "PID", data)
        synthetic = h5py.h5a.exists(fields, b"synthetic")
        mask = _mask(fields, pixels, data, name)
    if label not in (1, 2, 3):
        raise UserError(f"{name}: label {label:g} is none of 1 (meningioma), 2 (glioma), 3 (pituitary tumour)")
    if not patient.isprintable():
        raise UserError(f"{name}: the patient number (PID) is no text; correct it, a split by patient needs it")
    return Slice(pixels, patient, CLASSES[int(label) - 1], synthetic=synthetic, mask=mask)


def read_image(data: bytes, name: str) -> np.ndarray:
    """The pixels (height, width) of one file, whatever its other fields hold.

    Raises:
        UserError: truncated or not MATLAB v7.3, or no image.
    """
    with _fields(data, name) as fields:
        return _numbers(_field(fields, "image"), data).T


def read_folds(data: bytes, name: str) -> np.ndarray:
    """The dataset's official five folds, `cvind.mat`: entry i is the fold (1..5) of file i + 1, 0 where unknown."""
    try:
        with h5py.File.in_memory(data) as file:
            return _numbers(_field(h5py.h5g.open(file.id, b"/"), "cvind"), data).ravel().astype(int)
    except UNREADABLE as error:
        raise UserError(f"{name}: not the dataset's cvind.mat ({first_line(error)}); download it again") from error


@contextmanager
def _fields(data: bytes, name: str) -> Iterator[h5py.h5g.GroupID]:
    """The struct `cjdata`; whatever is wrong with it becomes one sentence."""
    try:
        with h5py.File.in_memory(data) as file:
            root = h5py.h5g.open(file.id, b"/")
            _own(root, "cjdata")
            yield h5py.h5g.open(root, b"cjdata")
    except UNREADABLE as error:
        raise UserError(
            f"{name}: truncated or not a file of the dataset ({first_line(error)}); download it again"
        ) from error


def _text(fields: h5py.h5g.GroupID, name: str, data: bytes) -> str:
    """MATLAB's text, a number a letter; empty where the field is missing."""
    if not fields.links.exists(name.encode()):
        return ""
    return "".join(chr(code) for code in _numbers(_field(fields, name, FEW), data).flat if code).strip()


def _mask(fields: h5py.h5g.GroupID, pixels: np.ndarray, data: bytes, name: str) -> np.ndarray | None:
    """Where the tumour is, (height, width) bool, if the file says so."""
    if not fields.links.exists(b"tumorMask"):
        return None
    field = _field(fields, "tumorMask")
    if field.shape != pixels.T.shape:
        raise UserError(f"{name}: tumorMask of shape {field.shape[::-1]}, image of {pixels.shape}; correct the mask")
    return _numbers(field, data).T > 0


# HDF5 can send its reader to other files of the machine: what is opened must lie in this very file. The calls below
# h5py's comfortable ones take a third of their time, which counts for thousands of files of a few numbers each.
def _field(group: h5py.h5g.GroupID, name: str, most: int | None = None) -> h5py.h5d.DatasetID:
    _own(group, name)
    field = h5py.h5d.open(group, name.encode())
    how = field.get_create_plist()
    if how.get_layout() == h5py.h5d.VIRTUAL or how.get_external_count():
        raise ValueError(f"{name} lies in another file")
    if field.dtype.kind not in "biuf":
        raise ValueError(f"{name} of type {field.dtype}")
    if np.prod(field.shape, dtype=float) > (most or MAX_PIXELS):
        raise ValueError(f"{name} of shape {field.shape} is more than can be read")
    return field


def _own(group: h5py.h5g.GroupID, name: str) -> None:
    links = group.links
    if not links.exists(name.encode()) or links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise ValueError(f"{name} is missing or a link")


def _numbers(field: h5py.h5d.DatasetID, data: bytes) -> np.ndarray:
    how = field.get_create_plist()
    filters = [how.get_filter(i)[0] for i in range(how.get_nfilters())]
    if filters:
        return _unpacked(field, data, filters)
    numbers = np.empty(field.shape, field.dtype)
    field.read(h5py.h5s.ALL, h5py.h5s.ALL, numbers)
    return numbers


def _unpacked(field: h5py.h5d.DatasetID, data: bytes, filters: list[int]) -> np.ndarray:
    """What `field.read` gives, in half the time: the file is in memory already, and isal inflates faster than zlib.

    And in bounded memory: HDF5 itself would unpack a block that looks small to gigabytes.
    """
    if filters not in ([DEFLATE], [SHUFFLE, DEFLATE]):
        raise ValueError("packed in another way than MATLAB does")
    dtype, how = field.dtype, field.get_create_plist()
    chunk = how.get_chunk()
    count = math.prod(chunk)
    if count > MAX_PIXELS:
        raise ValueError(f"blocks of {count} numbers are more than can be read")
    fill = np.zeros(1, dtype)
    how.get_fill_value(fill)
    whole = np.full(field.shape, fill[0], dtype)
    chunks: list[h5py.h5d.StoreInfo] = []
    field.chunk_iter(chunks.append)
    for corner, skipped, start, size in chunks:  # a bit of `skipped` for each filter that this block went without
        block = data[start : start + size]
        if not skipped >> filters.index(DEFLATE) & 1:
            stream = isal_zlib.decompressobj()
            block = stream.decompress(block, count * dtype.itemsize + 1)  # one more, so that its sum is checked
            if not stream.eof:
                raise ValueError("a damaged block of pixels")
        if SHUFFLE in filters and not skipped & 1:
            block = np.frombuffer(block, np.uint8, count * dtype.itemsize).reshape(dtype.itemsize, count).T.tobytes()
        numbers = np.frombuffer(block, dtype, count).reshape(chunk)
        part = whole[tuple(slice(low, low + length) for low, length in zip(corner, chunk, strict=True))]
        part[...] = numbers[tuple(slice(length) for length in part.shape)]
    return whole


def write_mat(
    path: Path, pixels: np.ndarray, label: int, patient: str, mask: np.ndarray, synthetic: bool = False
) -> None:
    """One slice as the dataset stores it, a struct `cjdata`.

    Args:
        path: the file to write.
        pixels: (height, width) int16, upright.
        label: 1 meningioma, 2 glioma, 3 pituitary tumour.
        patient: the PID.
        mask: (height, width) bool, where the tumour is.
        synthetic: add the attribute `synthetic = 1` to the struct.
    """
    with _written(path) as f:
        cjdata = f.create_group("cjdata")
        cjdata.attrs["MATLAB_class"] = np.bytes_("struct")
        if synthetic:
            cjdata.attrs["synthetic"] = np.int32(1)
        _put(cjdata, "PID", np.array([[ord(c)] for c in patient], np.uint16), "char", MATLAB_int_decode=2)
        _put(cjdata, "image", pixels.T, "int16")
        _put(cjdata, "label", np.array([[float(label)]]), "double")
        _put(cjdata, "tumorBorder", outline(mask).reshape(1, -1), "double")
        _put(cjdata, "tumorMask", mask.T.astype(np.uint8), "logical", MATLAB_int_decode=1)


def write_folds(path: Path, folds: np.ndarray) -> None:
    """The dataset's `cvind.mat`: entry i is the fold (1..5) of file i + 1."""
    with _written(path) as f:
        _put(f, "cvind", folds.reshape(1, -1).astype(float), "double")


def outline(mask: np.ndarray, points: int = 24) -> np.ndarray:
    """At most `points` corners (x, y) in pixels of a mask (height, width), in order around its centre."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    y, x = np.nonzero(mask & ~inner)
    around = np.argsort(np.arctan2(y - y.mean(), x - x.mean()), kind="stable")
    chosen = around[np.linspace(0, len(around), min(points, len(around)), endpoint=False).astype(int)]
    return np.stack([x[chosen], y[chosen]], axis=1).astype(float)


def _put(group: h5py.Group, name: str, array: np.ndarray, matlab_class: str, **attributes: int) -> None:
    packed = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if array.size > 1000 else {}
    dataset = group.create_dataset(name, data=array, **packed)
    dataset.attrs["MATLAB_class"] = np.bytes_(matlab_class)
    for key, value in attributes.items():
        dataset.attrs[key] = np.int32(value)


@contextmanager
def _written(path: Path) -> Iterator[h5py.File]:
    """A file to be filled, in memory: on a full disk HDF5 fails without an OSError, and crashes afterwards."""
    content = io.BytesIO()
    with h5py.File(content, "w", userblock_size=len(USERBLOCK)) as f:
        yield f
    content.seek(0)
    content.write(USERBLOCK)
    path.write_bytes(content.getvalue())
