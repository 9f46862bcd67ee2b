"""Damage in a .mat file that only fuzzing came upon."""

import time
import zlib

import h5py
import numpy as np
import pytest
from makers import mat, noise

from sslbt.data.formats import decode
from sslbt.data.matlab import read_mat
from sslbt.data.reading import Refused, read_files
from sslbt.errors import UserError


def wrong_sum(group: h5py.Group, name: str) -> None:
    """Pixels whose deflated block is whole, with another checksum behind it."""
    pixels = noise(1).astype(np.int16)
    field = group.create_dataset(name, pixels.shape, "i2", chunks=pixels.shape, compression="gzip")
    block = zlib.compress(pixels.tobytes())
    field.id.write_direct_chunk((0, 0), block[:-1] + bytes([block[-1] ^ 1]))


def endless(group: h5py.Group, name: str) -> None:
    """Sixty million numbers that take no place in the file, since all are the same."""
    group.create_dataset(name, (60_000_000, 1), "u8", fillvalue=65)


def test_a_wrong_checksum_is_damage() -> None:
    data = mat(image=wrong_sum)
    with pytest.raises(UserError, match=r"1\.mat: .*[Cc]hecksum"):
        decode(data, "1.mat")
    (found,) = read_files(iter([("1.mat", lambda: data)]))
    assert isinstance(found, Refused)


@pytest.mark.parametrize("name", ["PID", "label"])
def test_a_number_or_a_name_is_not_millions(name: str) -> None:
    data = mat(**{name: endless})
    assert len(data) < 10_000
    began = time.process_time()
    with pytest.raises(UserError, match=f"{name} of shape .* is more than can be read"):
        read_mat(data, "1.mat")
    assert time.process_time() - began < 2
