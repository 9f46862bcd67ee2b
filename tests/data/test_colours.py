"""What has colours is no MRI slice, but many a slice is stored as if it had."""

import numpy as np
import pytest
from forms import DEEP, GREY, RNG, encode, refused
from sklearn.datasets import load_sample_images

from sslbt.data.formats import decode

SMOOTH = (np.add.outer(np.arange(200), np.arange(240)) / 2 + 20).astype(np.uint8)
STEPS = np.kron(RNG.integers(0, 256, (10, 12)), np.ones((20, 20))).astype(np.uint8)  # edges, which JPEG blurs
RED, YELLOW, DULL = (255, 0, 0), (255, 255, 0), (150, 110, 90)


def stained(share: float, colour: tuple[int, int, int]) -> np.ndarray:
    """A grey slice with a square in a colour that covers this share of it."""
    pixels = np.repeat(SMOOTH[..., None], 3, axis=2)
    side = round((share * SMOOTH.size) ** 0.5)
    pixels[50 : 50 + side, 70 : 70 + side] = colour
    return pixels


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_grey_stored_as_colour_is_grey_again(mode: str) -> None:
    np.testing.assert_array_equal(decode(encode(GREY, "PNG", mode), "a"), GREY)


@pytest.mark.parametrize("grey", [SMOOTH, STEPS, SMOOTH // 16 + 7], ids=["smooth", "steps", "faint"])
@pytest.mark.parametrize(
    ("form", "mode", "how", "loss"),
    [
        ("JPEG", "RGB", {"quality": 75}, 30),
        ("JPEG", "RGB", {"quality": 75, "subsampling": 0}, 30),
        ("JPEG", "CMYK", {"quality": 75}, 40),
        ("PNG", "P", {}, 0),
        ("PNG", "RGBA", {}, 0),
        ("TIFF", "CMYK", {}, 0),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}, 0),
    ],
)
def test_grey_is_grey_however_it_is_stored(grey: np.ndarray, form: str, mode: str, how: dict, loss: int) -> None:
    found = decode(encode(grey, form, mode, **how), "a").astype(int)
    assert abs(found - grey).max() <= loss


def test_grey_of_a_camera_whose_channels_have_noise_of_their_own() -> None:
    noisy = (np.repeat(SMOOTH[..., None], 3, axis=2) + RNG.normal(0, 4, (*SMOOTH.shape, 3))).clip(0, 255)
    assert decode(encode(noisy.astype(np.uint8), "JPEG", quality=75), "a").shape == SMOOTH.shape


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_coloured_arrow_on_a_grey_slice_turns_grey(form: str) -> None:
    colour = stained(0.003, YELLOW)
    luma = colour @ [0.299, 0.587, 0.114]  # ITU-R 601
    found = decode(encode(colour, form), "a")
    assert np.median(abs(found - luma)) <= 1
    if form == "PNG":
        assert abs(found - luma).max() <= 1


@pytest.mark.parametrize(
    ("colour", "form", "mode"),
    [
        (stained(0.01, RED), "PNG", "RGB"),
        (stained(0.01, RED), "PNG", "P"),
        (stained(0.01, RED), "PNG", "RGBA"),
        (stained(0.02, YELLOW), "JPEG", "CMYK"),
        (stained(0.02, DULL), "JPEG", "RGB"),
        ((SMOOTH[..., None] * np.array([1, 0.8, 0.6])).astype(np.uint8), "TIFF", "RGB"),  # sepia
        (np.stack([SMOOTH, 255 - SMOOTH, SMOOTH[::-1]], 2), "PNG", "RGB"),
        (np.stack([SMOOTH, 255 - SMOOTH, SMOOTH[::-1]], 2) // 20, "PNG", "RGB"),  # in the dark
        (RNG.integers(0, 256, (20, 31, 3)).astype(np.uint8), "PNG", "RGB"),
        *[(picture, "JPEG", "RGB") for picture in load_sample_images().images],  # a temple, a flower
    ],
)
def test_a_picture_in_colours_is_refused(colour: np.ndarray, form: str, mode: str) -> None:
    sentence = refused(encode(colour, form, mode), decode)
    assert sentence == "a picture in colours; MRI slices are grey, export the slice without colours"


def test_sixteen_bits_have_no_colours_to_look_for() -> None:
    assert decode(encode(DEEP, "PNG"), "a").dtype == np.uint16
