"""Pictures come out as they went in, whatever their form, or are refused in a sentence."""

import io

import numpy as np
import pytest
from forms import DEEP, GREY, RNG, encode, mat, pixels_if_any, refused
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sslbt.data import formats, matlab, raster, slices
from sslbt.data.formats import decode
from sslbt.data.slices import check_pixels
from sslbt.errors import UserError


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_survive(form: str) -> None:
    np.testing.assert_array_equal(decode(encode(DEEP, form), "a"), DEEP)


def test_big_endian_and_compressed_tiff() -> None:
    big = io.BytesIO()
    Image.frombytes("I;16B", DEEP.shape[::-1], DEEP.astype(">u2").tobytes()).save(big, "TIFF")
    np.testing.assert_array_equal(decode(big.getvalue(), "a"), DEEP)
    np.testing.assert_array_equal(decode(encode(DEEP, "TIFF", compression="tiff_lzw"), "a"), DEEP)


def test_floating_point_tiff() -> None:
    pixels = DEEP.astype(np.float32) / 7
    np.testing.assert_array_equal(decode(encode(pixels, "TIFF"), "a"), pixels)


def test_one_bit_is_black_and_white() -> None:
    found = decode(encode(GREY > 127, "PNG"), "a")
    np.testing.assert_array_equal(found > 0, GREY > 127)
    assert found.dtype == np.uint8


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_is_read_within_its_loss(mode: str) -> None:
    smooth = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8) + 50
    found = decode(encode(smooth, "JPEG", mode, quality=95), "a").astype(int)
    assert found.shape == smooth.shape
    assert abs(found - smooth).max() <= 6


def test_the_content_decides_not_the_name() -> None:
    np.testing.assert_array_equal(decode(encode(GREY, "PNG"), "1.mat"), GREY)


@pytest.mark.parametrize("form", ["GIF", "BMP", "WEBP"])
def test_other_picture_formats_are_refused(form: str) -> None:
    assert "no .mat, DICOM, NIfTI, PNG, JPEG or TIFF" in refused(encode(GREY, form), decode)


@pytest.mark.filterwarnings("ignore:.*EXIF")
@pytest.mark.parametrize("name", ["png", "jpeg", "tiff", "mat"])
def test_no_cut_is_read_as_a_whole_file(name: str) -> None:
    whole = {
        "png": encode(DEEP, "PNG"),
        "jpeg": encode(GREY, "JPEG"),
        "tiff": encode(DEEP, "TIFF"),
        "mat": mat(),
    }[name]
    expected = decode(whole, "a")
    for length in {*range(40), *range(40, len(whole) - 1, 37)}:
        found = pixels_if_any(whole[:length])
        if found is not None:  # what was cut off says nothing of the pixels: an end mark, tags
            np.testing.assert_array_equal(found, expected)
    assert refused(whole[: len(whole) // 2], decode)
    assert refused(b"", decode)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=150, deadline=None)
@given(which=st.sampled_from(["png", "jpeg", "tiff"]), at=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_a_wrong_byte_gives_pixels_or_one_sentence(which: str, at: float, byte: int) -> None:
    data = bytearray({"png": encode(DEEP, "PNG"), "jpeg": encode(GREY, "JPEG"), "tiff": encode(DEEP, "TIFF")}[which])
    data[int(at * len(data))] = byte
    found = pixels_if_any(bytes(data))
    assert found is None or found.ndim == 2


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_refused(data: bytes) -> None:
    for magic in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", formats.HDF5_MAGIC):
        refused(magic + data, decode)
    refused(data)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_pixel_that_is_not_finite_is_enough(value: float) -> None:
    pixels = DEEP.astype(np.float32)
    pixels[3, 4] = value
    assert "not finite" in refused(mat(image=pixels.T), decode)
    assert "not finite" in refused(encode(pixels, "TIFF"), decode)


def test_constant_pixels_are_refused() -> None:
    assert "all pixels are equal" in refused(mat(image=np.full((20, 20), 5, np.int16)), decode)
    assert "all pixels are equal" in refused(encode(np.zeros((20, 20), np.uint8), "PNG"), decode)


@pytest.mark.parametrize("shape", [(400,), (1, 20, 20), (20, 20, 3)])
def test_only_two_dimensions(shape: tuple[int, ...]) -> None:
    assert "expected one grey picture" in refused(mat(image=RNG.integers(0, 9, shape).astype(np.int16)), decode)


def test_the_smallest_picture_is_16_by_16() -> None:
    assert decode(encode(GREY[:16, :16], "PNG"), "a").shape == (16, 16)
    assert "15 x 16 pixels" in refused(encode(GREY[:15, :16], "PNG"), decode)
    assert "16 x 15 pixels" in refused(mat(image=DEEP[:16, :15].T), decode)


def test_the_largest_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    for reader in (slices, raster, matlab):
        monkeypatch.setattr(reader, "MAX_PIXELS", DEEP.size)
    assert decode(encode(DEEP, "PNG"), "a").shape == DEEP.shape
    for reader in (slices, raster, matlab):
        monkeypatch.setattr(reader, "MAX_PIXELS", DEEP.size - 1)
    assert "more than can be read" in refused(encode(DEEP, "PNG"), decode)
    assert "more than can be read" in refused(mat())
    with pytest.raises(UserError, match="20 x 31 pixels"):
        check_pixels(DEEP, "a")


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = encode(np.zeros((9000, 9000), np.uint8), "PNG")  # 81 megapixels in a few hundred kilobytes
    assert len(bomb) < 300_000
    assert "9000 x 9000 pixels is more than can be read" in refused(bomb, decode)


def test_a_long_picture_is_refused_for_the_square_that_it_would_become() -> None:
    long = np.arange(16 * 8001, dtype=np.uint8).reshape(16, 8001)
    with pytest.raises(UserError, match="16 x 8001 pixels; 16 x 16 to 8000 x 8000 can be read"):
        check_pixels(long, "a")
    assert check_pixels(long[:, :8000], "a").shape == (16, 8000)
