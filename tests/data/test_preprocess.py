import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sslbt.data.preprocess import SIDE, Preprocess, resize, to_square

SHAPES = [(512, 512), (256, 256), (100, 40), (41, 100), (300, 517), (16, 16)]


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.gamma(2, 300, (height, width)).astype(np.float32) + 50


def apply(*pictures: np.ndarray) -> np.ndarray:
    return Preprocess()(torch.from_numpy(np.stack(pictures)).float())[:, 0].numpy()


def by_pillow(pixels: np.ndarray, side: int) -> np.ndarray:
    """A square picture in another size, by a peer that resizes without aliasing."""
    return np.asarray(Image.fromarray(pixels.astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_padding_resizing_and_percentiles(shape: tuple[int, int]) -> None:
    pixels = picture(*shape)
    side = max(shape)
    top, left = (side - shape[0]) // 2, (side - shape[1]) // 2
    square = np.zeros((side, side), np.float32)
    square[top : top + shape[0], left : left + shape[1]] = pixels - pixels.min()
    square = by_pillow(square, SIDE)
    low, high = np.percentile(square, [1, 99], method="closest_observation")
    expected = ((square - low) / (high - low)).clip(0, 1)
    np.testing.assert_allclose(apply(pixels)[0], expected, atol=2e-3)


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-4, 1e6), st.floats(-1, 1), st.sampled_from([(64, 64), (40, 100), (300, 280)]))
def test_scale_and_offset_change_nothing(scale: float, offset: float, shape: tuple[int, int]) -> None:
    pixels = picture(*shape)
    changed = (pixels.astype(np.float64) + offset * np.ptp(pixels)) * scale
    np.testing.assert_allclose(apply(changed.astype(np.float32)), apply(pixels), atol=1e-4)


def test_all_of_the_range_is_used_and_two_percent_saturate() -> None:
    (found,) = apply(picture(256, 256))
    assert (found.min(), found.max()) == (0, 1)
    for end in (0, 1):
        assert (found == end).mean() == pytest.approx(0.01, abs=1e-4)


def test_a_slice_does_not_depend_on_its_neighbours_in_the_batch() -> None:
    a, b = picture(90, 120, 1), 1000 * picture(90, 120, 2)
    together = apply(a, b)
    np.testing.assert_array_equal(together[0], apply(a)[0])
    np.testing.assert_array_equal(together[1], apply(b)[0])


def test_whole_numbers_of_every_size_survive_the_network_type() -> None:
    pixels = np.random.default_rng(0).integers(-32768, 32767, (256, 256)).astype(np.int16)
    low, high = (np.sort(pixels.ravel())[[654, -655]]).astype(float)
    np.testing.assert_allclose(apply(pixels)[0], ((pixels - low) / (high - low)).clip(0, 1), atol=1e-5)


@pytest.mark.parametrize("hot", [1, 600])
def test_a_nearly_empty_slice_stays_finite(hot: int) -> None:
    pixels = np.full((256, 256), 7.0, np.float32)
    pixels.ravel()[:hot] = 4000
    (found,) = apply(pixels)
    np.testing.assert_array_equal(found, pixels > 7)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_padding_keeps_the_picture_in_the_middle(shape: tuple[int, int]) -> None:
    pixels = picture(*shape)
    square = to_square(torch.from_numpy(pixels)[None])[0].numpy()
    assert square.shape == (max(shape), max(shape))
    assert square.sum(dtype=float) == pytest.approx(pixels.sum(dtype=float))
    rows, columns = (np.flatnonzero(square.any(axis)) for axis in (1, 0))
    np.testing.assert_array_equal(square[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], pixels)
    for line, side in ((rows, square.shape[0]), (columns, square.shape[1])):
        assert 0 <= (side - 1 - line[-1]) - line[0] <= 1


@pytest.mark.parametrize("size", [64, 96, 128, 224])
def test_smaller_slices_are_those_of_pillow(size: int) -> None:
    pixels = apply(picture(256, 256))[0]
    found = resize(torch.from_numpy(pixels)[None, None], size)
    assert found.shape == (1, 1, size, size)
    np.testing.assert_allclose(found[0, 0].numpy(), by_pillow(pixels, size), atol=1e-4)


def test_stripes_finer_than_a_pixel_vanish() -> None:
    stripes = torch.arange(256).remainder(2).float().expand(1, 1, 256, 256)
    inner = resize(stripes, 64)[..., 2:-2, 2:-2]
    assert (inner - 0.5).abs().max() < 0.02


def test_full_size_is_left_as_it_is() -> None:
    pixels = torch.rand(2, 1, SIDE, SIDE)
    assert torch.equal(resize(pixels, SIDE), pixels)
