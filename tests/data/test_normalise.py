"""Pixels and masks as the cache holds them: where the network sees the same, whatever they come from."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sslbt.data.normalise import normalise, shrink
from sslbt.data.preprocess import Preprocess, to_square

PREPROCESS = Preprocess()
TYPES = ["int8", "uint8", "int16", ">i2", "uint16", "int32", "uint32", "int64", "float32", "float64"]
VIEWS: list[Callable[[np.ndarray], np.ndarray]] = [
    np.ascontiguousarray,
    np.asfortranarray,
    lambda pixels: np.repeat(np.repeat(pixels, 2, 0), 2, 1)[::2, ::2],
    lambda pixels: np.repeat(pixels.T, 3, 0).T[:, ::3],
    lambda pixels: pixels[::-1, ::-1],
]


@st.composite
def pictures(draw: Callable) -> np.ndarray:
    """Noise, blobs, lines or a few hot pixels; of any size, number type, scale, offset and order in memory."""
    height, width = draw(st.tuples(st.integers(16, 600), st.integers(16, 600)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    y, x = np.mgrid[:height, :width] / max(height, width)
    form = draw(st.sampled_from(["noise", "blob", "lines", "hot", "steps"]))
    shape = {
        "noise": lambda: rng.random((height, width)),
        "blob": lambda: np.exp(-30 * ((x - rng.random()) ** 2 + (y - rng.random()) ** 2)),
        "lines": lambda: (np.sin(300 * rng.random() * x + 9 * y) + 1) / 2,
        "hot": lambda: (rng.random((height, width)) < 0.003).astype(float),
        "steps": lambda: np.floor(4 * x + 3 * y) / 7,
    }[form]()
    dtype = np.dtype(draw(st.sampled_from(TYPES)))
    if dtype.kind == "f":
        scale = 10.0 ** draw(st.integers(-20, 30))
        pixels = (shape + draw(st.sampled_from([0, -0.5, -1, 3, 1000]))) * scale
    else:
        ends = np.iinfo(dtype)
        low, high = sorted(draw(st.tuples(st.integers(ends.min, ends.max), st.integers(ends.min, ends.max))))
        assume(high - low > 1)
        pixels = np.clip(np.floor(low + shape * float(high - low)), low, np.nextafter(float(high), float(low)))
    pixels = pixels.astype(dtype)
    assume(pixels.astype(np.float32).min() < pixels.astype(np.float32).max())
    return draw(st.sampled_from(VIEWS))(pixels)


def in_network(pixels: np.ndarray) -> np.ndarray:
    """What the exported classifier makes of a slice, in 256 levels."""
    return PREPROCESS(torch.from_numpy(np.ascontiguousarray(pixels, np.float32)[None]))[0, 0].numpy() * 255.0


@settings(max_examples=80, deadline=None)
@given(pictures())
def test_the_cache_holds_what_the_network_would_see(pixels: np.ndarray) -> None:
    found = normalise(pixels)
    assert (found.shape, found.dtype) == ((256, 256), np.uint8)
    assert np.abs(found - in_network(pixels)).max() <= 0.5 + 1e-3


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(np.uint8, st.tuples(st.integers(16, 80), st.integers(16, 80))),
    st.integers(-8, 12),
    st.integers(-(2**15), 2**15),
)
def test_doubling_halving_and_adding_change_nothing(pixels: np.ndarray, doubled: int, added: int) -> None:
    assume(pixels.min() < pixels.max())
    expected = normalise(pixels)
    changed = np.ldexp(pixels + float(added), doubled)
    np.testing.assert_array_equal(normalise(changed), expected)
    np.testing.assert_array_equal(normalise(changed.astype(np.float32)), expected)


@settings(max_examples=60, deadline=None)
@given(pictures(), st.floats(1e-3, 1e3))
def test_any_scale_changes_at_most_the_rounding(pixels: np.ndarray, scale: float) -> None:
    image = pixels.astype(np.float32)
    assume(np.ptp(image) > 2**-8 * abs(image).max())  # far from zero, multiplying itself rounds too much away
    changed = normalise(image * np.float32(scale))
    assert np.abs(changed.astype(int) - normalise(pixels)).max() <= 1


def test_the_ends_of_what_a_number_can_hold_are_ends_of_the_picture() -> None:
    pixels = np.zeros((40, 40), np.float64)
    pixels[:20], pixels[20:] = -1.6e38, 1.6e38
    found = normalise(pixels)
    assert (found[:120].max(), found[136:].min()) == (0, 255)


@st.composite
def outlines(draw: Callable) -> np.ndarray:
    """Where a tumour may be: an ellipse, a line or a few pixels, somewhere in a picture of any size."""
    height, width = draw(st.tuples(st.integers(16, 700), st.integers(16, 700)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    y, x = np.mgrid[:height, :width]
    top, left, tall, wide = rng.random(4) * (height, width, height / 3, width / 3)
    form = draw(st.sampled_from(["ellipse", "line", "pixels", "everything"]))
    mask = {
        "ellipse": lambda: ((y - top) / (tall + 1)) ** 2 + ((x - left) / (wide + 1)) ** 2 < 1,
        "line": lambda: (y == int(top)) & (x >= left),
        "pixels": lambda: rng.random((height, width)) < 4 / (height * width),
        "everything": lambda: np.ones((height, width), bool),
    }[form]()
    return draw(st.sampled_from(VIEWS))(mask)


@settings(max_examples=100, deadline=None)
@given(outlines())
def test_a_mask_is_where_the_network_sees_the_tumour(mask: np.ndarray) -> None:
    found = shrink(mask)
    assert (found.shape, found.dtype) == ((256, 256), bool)
    square = to_square(torch.from_numpy(np.ascontiguousarray(mask, np.float32))[None])
    share = F.interpolate(square[:, None], (256, 256), mode="bilinear", antialias=True)[0, 0].numpy()
    if (share > 0.51).any():
        clear = abs(share - 0.5) > 0.01  # ends of rounding
        np.testing.assert_array_equal(found[clear], share[clear] > 0.5)
    else:  # it is thinner than a pixel, and lies where there is some of it
        assert found.any() == mask.any()
        assert (share[found] > 0).all()


def test_a_mask_lies_on_the_pixels_it_is_of() -> None:
    pixels = np.zeros((300, 500), np.int16)
    pixels[200:240, 350:420] = 900
    for view in VIEWS:
        np.testing.assert_array_equal(shrink(view(pixels > 0)), normalise(view(pixels)) > 127)


@pytest.mark.parametrize("side", [16, 100, 256, 257, 512, 5000])
def test_a_tumour_of_one_pixel_does_not_vanish(side: int) -> None:
    for y, x in ((0, 0), (side - 1, side - 1), (side // 3, side // 2)):
        mask = np.zeros((side, side), bool)
        mask[y, x] = True
        down, across = (np.mean(axis) for axis in np.nonzero(shrink(mask)))
        assert abs((down + 0.5) / 256 - (y + 0.5) / side) <= 1 / min(side, 256)
        assert abs((across + 0.5) / 256 - (x + 0.5) / side) <= 1 / min(side, 256)


def test_a_mask_of_nothing_stays_one() -> None:
    assert not shrink(np.zeros((30, 500), bool)).any()


def test_what_is_given_is_not_changed() -> None:
    pixels = np.random.default_rng(0).random((300, 200), np.float32) + 5
    for given_ in (pixels, np.asfortranarray(pixels)):
        before = given_.copy()
        normalise(given_)
        np.testing.assert_array_equal(given_, before)
