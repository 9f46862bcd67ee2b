"""From the bytes of one file to the pixels of one slice: MATLAB v7.3, PNG, JPEG, TIFF.

Torch-free, so that the scoring service can use it.
"""

import io
from dataclasses import dataclass

import h5py
import numpy as np
from PIL import Image, UnidentifiedImageError

from sslbt.errors import UserError

MAX_PIXELS = 64_000_000
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# What h5py raises, and what is raised where a file holds something else than the dataset's fields.
UNREADABLE = (OSError, LookupError, RuntimeError, ValueError, TypeError, AttributeError, OverflowError)
SUFFIXES = (".mat", ".png", ".jpg", ".jpeg", ".tif", ".tiff")


@dataclass(frozen=True)
class Slice:
    """One labelled slice as the dataset stores it."""

    pixels: np.ndarray  # (height, width), the file's own number type, upright
    label: int  # 1 meningioma, 2 glioma, 3 pituitary tumour
    patient: str
    synthetic: bool  # a phantom, see `matfile.write_mat`


def decode(data: bytes, name: str) -> np.ndarray:
    """Pixels (height, width) of one file's bytes, whatever its format.

    Args:
        data: the whole file.
        name: what to call the file in an error.

    Raises:
        UserError: the bytes are no readable picture, or its pixels can't be used.
    """
    if HDF5_MAGIC in (data[:8], data[512:520]):
        return check_pixels(_matlab(data, name, "image")["image"], name)
    if data.startswith(b"MATLAB 5"):
        raise UserError(f"{name}: MATLAB v5 file; save it with -v7.3, as the figshare dataset does")
    return check_pixels(_picture(data, name), name)


def read_mat(data: bytes, name: str) -> Slice:
    """One file of the figshare brain tumour dataset (doi 10.6084/m9.figshare.1512427).

    Raises:
        UserError: truncated or not MATLAB v7.3, a field is missing, the label is not 1, 2 or 3, the PID is
            empty or no text, or the pixels can't be used.
    """
    fields = _matlab(data, name, "image", "label", "PID")
    label = fields["label"]
    if label not in (1, 2, 3):
        raise UserError(f"{name}: label {label:g} is none of 1 (meningioma), 2 (glioma), 3 (pituitary tumour)")
    if not fields["PID"] or not fields["PID"].isprintable():
        raise UserError(f"{name}: the patient number (PID) is empty or no text; a split by patient needs it")
    return Slice(check_pixels(fields["image"], name), int(label), fields["PID"], fields["synthetic"])


def check_pixels(pixels: np.ndarray, name: str) -> np.ndarray:
    """The same pixels, if they can be normalised.

    Raises:
        UserError: not two-dimensional, smaller than 16 x 16, larger than 64 megapixels, not finite, or constant.
    """
    if pixels.ndim != 2:
        raise UserError(f"{name}: expected one grey picture (height, width), found shape {pixels.shape}")
    if min(pixels.shape) < 16 or pixels.size > MAX_PIXELS:
        raise UserError(f"{name}: {pixels.shape[0]} x {pixels.shape[1]} pixels; 16 x 16 to 64 megapixels can be read")
    if not np.isfinite(pixels).all():
        raise UserError(f"{name}: holds pixels that are not finite (NaN or infinity); export the slice again")
    if pixels.min() == pixels.max():
        raise UserError(f"{name}: all pixels are equal; an empty slice can't be classified")
    return pixels


def read_folds(data: bytes, name: str) -> np.ndarray:
    """The dataset's official five folds, `cvind.mat`: entry i is the fold (1..5) of file i + 1, 0 where unknown."""
    try:
        with h5py.File(io.BytesIO(data), "r") as f:
            return np.asarray(_dataset(f, "cvind")[()]).ravel().astype(int)
    except UNREADABLE as error:
        raise UserError(f"{name}: not the dataset's cvind.mat ({_first_line(error)}); download it again") from error


def _matlab(data: bytes, name: str, *wanted: str) -> dict:
    read = {"image": _image, "label": _number, "PID": _text}
    try:
        with h5py.File(io.BytesIO(data), "r") as f:
            fields = {field: read[field](_dataset(f, "cjdata", field)) for field in wanted}
            return fields | {"synthetic": bool(f["cjdata"].attrs.get("synthetic", False))}
    except UNREADABLE as error:
        raise UserError(
            f"{name}: truncated or not a file of the dataset ({_first_line(error)}); download it again"
        ) from error


def _dataset(file: h5py.File, *path: str) -> h5py.Dataset:
    """What lies at a path within this very file; HDF5 can also send its reader to other files of the machine."""
    found = file
    for name in path:
        if not isinstance(found.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name} is missing or a link")
        found = found[name]
    if found.external or found.is_virtual:
        raise ValueError(f"{path[-1]} lies in another file")
    return found


def _image(field: h5py.Dataset) -> np.ndarray:
    if field.dtype.kind not in "biuf":
        raise ValueError(f"pixels of type {field.dtype}")
    if field.size > MAX_PIXELS:
        raise ValueError(f"{field.size} pixels are more than can be read")
    return np.asarray(field[()]).T  # HDF5 holds MATLAB's columns as rows


def _number(field: h5py.Dataset) -> float:
    return float(np.asarray(field[()]).ravel()[0])


def _text(field: h5py.Dataset) -> str:
    return "".join(chr(c) for c in np.asarray(field[()]).ravel() if c).strip()


def _picture(data: bytes, name: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "TIFF")) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise UserError(f"{name}: {picture.height} x {picture.width} pixels is more than can be read")
            if picture.mode in ("1", "L", "F") or picture.mode.startswith("I"):
                return np.asarray(picture if picture.mode != "1" else picture.convert("L"))
            return np.asarray(picture.convert("L"))
    except UnidentifiedImageError as error:
        raise UserError(
            f"{name}: neither .mat, PNG, JPEG nor TIFF, or cut off at the start; export it again"
        ) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{name}: no readable .mat, PNG, JPEG or TIFF ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return str(error).strip("'\"").splitlines()[0] if str(error) else type(error).__name__
