"""Pictures and files of the data set as bytes, and what reading them gives."""

import io
from collections.abc import Callable

import h5py
import numpy as np
import pytest
from PIL import Image

from sslbt.data.formats import decode
from sslbt.data.matlab import USERBLOCK, read_mat
from sslbt.errors import UserError

RNG = np.random.default_rng(0)

DEEP = RNG.integers(0, 65536, (20, 31)).astype(np.uint16)

GREY = (DEEP >> 8).astype(np.uint8)


def encode(pixels: np.ndarray, form: str, mode: str | None = None, **how: object) -> bytes:
    picture = Image.fromarray(pixels)
    out = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(out, form, **how)
    return out.getvalue()


def mat(fill: Callable[[h5py.File], object] | None = None, **changed: object) -> bytes:
    """A file as MATLAB writes it: 512 bytes of its own, then HDF5 with columns as rows. None leaves a field out."""
    fields = {
        "PID": np.array([[ord(c)] for c in "MR017260F"], np.uint16),
        "image": DEEP.astype(np.int16).T,
        "label": np.array([[2.0]]),
        **changed,
    }
    out = io.BytesIO()
    with h5py.File(out, "w", userblock_size=512) as f:
        for name, value in fields.items():
            if value is not None:
                f[f"cjdata/{name}"] = value
        if fill:
            fill(f)
    return USERBLOCK + out.getvalue()[512:]


def refused(data: bytes, read: Callable[[bytes, str], object] = read_mat) -> str:
    """The sentence an unusable file gets, less the file's name, which has to be in front."""
    with pytest.raises(UserError, match=r"^here/7\.mat: ") as caught:
        read(data, "here/7.mat")
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix("here/7.mat: ")


def pixels_if_any(data: bytes) -> np.ndarray | None:
    try:
        return decode(data, "here/7.mat")
    except UserError as error:
        sentence = str(error)
    assert sentence.startswith("here/7.mat: ")
    return None
