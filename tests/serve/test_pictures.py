import base64
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from pydicom.data import get_testdata_file

from serve.pictures import from_bytes, from_value
from sslbt.errors import UserError


def test_every_form_of_a_file_gives_the_same_pixels(mat, pixels):
    text = base64.b64encode(mat).decode()
    forms = [mat, bytearray(mat), np.bytes_(mat), text, text.encode(), base64.encodebytes(mat).decode()]
    for form in forms:
        np.testing.assert_array_equal(from_value(form, "x"), pixels)
    np.testing.assert_array_equal(from_bytes(mat, "x"), pixels)


def test_raw_pixels_come_as_array_or_nested_lists(pixels):
    np.testing.assert_array_equal(from_value(pixels, "x"), pixels)
    np.testing.assert_array_equal(from_value(pixels.tolist(), "x"), pixels)


@pytest.mark.parametrize(
    "value",
    [
        None,
        float("nan"),
        7,
        "",
        b"",
        "not base64!",
        "\ud800",
        "ü",
        base64.b64encode(b"no picture").decode(),
        b"\x89PNG\r\n\x1a\n cut short",
        ["a", "b"],
        [[1, 2], [3]],
        [[0] * 20] * 20,
        np.full((20, 20), np.nan),
        np.zeros((20, 20), bool),
        np.zeros((2, 20, 20)),
        [[10**400] * 20] * 20,
    ],
)
def test_what_is_no_picture_gives_its_reason(value):
    picture = from_value(value, "row 3")
    assert isinstance(picture, UserError)
    assert str(picture).startswith("row 3: ")


@pytest.mark.parametrize("text", ["a" * 200_000, b"a" * 200_000])
def test_a_long_text_among_numbers_takes_no_more_memory_than_it_has(text):
    tracemalloc.start()
    picture = from_value([[text, *[0] * 999]], "x")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(picture, UserError)
    assert most < 2**20  # as an array of text 200 or 800 MB


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9])
def test_a_truncated_file_gives_its_reason(mat, png, share):
    for data in (mat, png):
        assert isinstance(from_bytes(data[: int(share * len(data))], "cut"), UserError)


def test_dicom_is_a_picture_if_it_holds_one():
    one, several = (
        Path(str(get_testdata_file(name, download=False))).read_bytes()
        for name in ("MR_small.dcm", "rtdose.dcm")  # 15 frames of 10 x 10
    )
    assert from_bytes(one, "x").shape == (64, 64)
    picture = from_bytes(several, "x")
    assert isinstance(picture, UserError)
    assert "several slices" in str(picture)
