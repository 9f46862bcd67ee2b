"""What every reader gives: the pixels of one slice, and what its file itself says of it."""

from dataclasses import dataclass

import numpy as np

from sslbt.errors import UserError

MAX_PIXELS, MAX_SIDE = 64_000_000, 8000


@dataclass(frozen=True)
class Slice:
    """One slice as its file holds it; empty text where the file doesn't say."""

    pixels: np.ndarray  # (height, width), the file's own numbers, upright
    patient: str = ""
    label: str = ""  # name of its class
    plane: str = ""  # axial, coronal or sagittal
    synthetic: bool = False  # a phantom, see `matlab.write_mat`
    number: int = 0  # 1, 2, ... where a file holds several
    mask: np.ndarray | None = None  # (height, width) bool, where the tumour is, upright like the pixels


def check_pixels(pixels: np.ndarray, name: str) -> np.ndarray:
    """The same pixels, if they can be normalised.

    Raises:
        UserError: not two-dimensional, a side shorter than 16 or longer than 8,000, not finite, or constant.
    """
    if pixels.ndim != 2:
        raise UserError(f"{name}: expected one grey picture (height, width), found shape {pixels.shape}")
    # Pictures are padded to a square: a long one costs what its square does.
    if min(pixels.shape) < 16 or max(pixels.shape) > MAX_SIDE or pixels.size > MAX_PIXELS:
        raise UserError(f"{name}: {pixels.shape[0]} x {pixels.shape[1]} pixels; 16 x 16 to 8000 x 8000 can be read")
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = np.float32(pixels.min()), np.float32(pixels.max())  # what all further computing is done in
        span = high - low
    if not np.isfinite(span):  # NaN and infinity always show in one of the two
        raise UserError(f"{name}: holds pixels that are not finite (NaN, infinity, above 3e38); export the slice again")
    if not span:
        raise UserError(f"{name}: all pixels are equal; an empty slice can't be classified")
    return pixels


def first_line(error: Exception) -> str:
    """The beginning of what a library says, without its quotes."""
    said = str(error).strip("'\"").splitlines()
    return said[0] if said else type(error).__name__
