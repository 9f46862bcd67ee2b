"""From what a caller hands in (bytes, base64, numbers) to the pixels of one picture, or the reason there are none."""

import base64
import binascii
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from sslbt.data.formats import decode, pictures
from sslbt.data.slices import check_pixels
from sslbt.errors import UserError

Picture = np.ndarray | UserError  # pixels (height, width), or the one sentence why they can't be had


def from_bytes(data: bytes, name: str) -> Picture:
    """The picture in one file's bytes; `name` is what to call the file in the reason."""
    try:
        return decode(data, name)
    except UserError as error:
        return error


def all_from_bytes(data: bytes | UserError, name: str) -> list[tuple[str, Picture]]:
    """Every slice of one file, by name; one file may be a volume. A file that could not be had gives its reason."""
    found: list[tuple[str, Picture]] = []
    try:
        if isinstance(data, UserError):
            raise data
        for slice_, pixels in pictures(data, name):
            found.append((slice_, checked(pixels, slice_)))
    except UserError as error:
        found.append((name, error))
    return found


def checked(pixels: np.ndarray, name: str) -> Picture:
    """The pixels, or why they can't be used."""
    try:
        return check_pixels(pixels, name)
    except UserError as error:
        return error


def from_value(value: object, name: str) -> Picture:
    """The picture in one cell of a table: a file's bytes, its base64 (bytes or str), or raw pixels (height, width).

    Bytes are tried as base64 only if all ASCII, which no file of a picture is, so neither can pass for the other.
    """
    try:
        if isinstance(value, str | bytes | bytearray | memoryview):
            return decode(file_bytes(value, name), name)
        if isinstance(value, np.ndarray | Sequence):
            return check_pixels(_numbers(value, name), name)
        raise UserError(f"{name}: no picture but {type(value).__name__}; send a file's bytes, base64, or its pixels")
    except UserError as error:
        return error


def later(value: object, name: str) -> Callable[[], Picture]:
    """`from_value` for when it is a picture's turn; of a list now, as it takes many times the memory of its pixels."""
    if isinstance(value, list):
        picture = from_value(value, name)
        return lambda: picture
    return partial(from_value, value, name)


def file_bytes(value: str | bytes | bytearray | memoryview, name: str) -> bytes:
    """A file from its bytes or base64, see `from_value`.

    Raises:
        UserError: text that is no base64.
    """
    data = value.encode(errors="replace") if isinstance(value, str) else bytes(value)
    try:
        return base64.b64decode(b"".join(data.split()), validate=True) if data.isascii() else data
    except binascii.Error as error:
        if isinstance(value, str):
            raise UserError(f"{name}: the text is no base64 ({error}); encode the whole file") from error
        return data


def _numbers(value: np.ndarray | Sequence, name: str) -> np.ndarray:
    try:
        pixels = value if isinstance(value, np.ndarray) else np.array(value, object)
        # Left alone, numpy makes every cell as wide as the longest text among them: gigabytes of a small request.
        if pixels.dtype == object and not any(issubclass(kind, str | bytes) for kind in set(map(type, pixels.flat))):
            pixels = np.asarray(value)
    except ValueError as error:
        raise UserError(f"{name}: rows of unequal length; raw pixels come as (height, width)") from error
    if pixels.dtype.kind not in "iuf":
        raise UserError(f"{name}: raw pixels must be integers or floats; give each picture a row of its own")
    return pixels
