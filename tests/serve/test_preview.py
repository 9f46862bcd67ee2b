import base64
import io

import numpy as np
import pytest
from PIL import Image

from serve.preview import data_url, overlay_url


def opened(url: str) -> Image.Image:
    head, data = url.split(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize("shape", [(96, 80), (512, 512), (1000, 333), (17, 3000), (1, 1), (5000, 2)])
def test_the_overlay_fits_over_the_preview(shape):
    pixels = np.random.default_rng(0).random(shape)
    below, above = opened(data_url(pixels)), opened(overlay_url(pixels, np.ones((96, 96), np.float32)))
    assert below.mode == "L"
    assert below.size == above.size
    assert max(below.size) == min(384, max(shape))


@pytest.mark.parametrize("shape", [(200, 200), (200, 300), (300, 200), (301, 84), (700, 1200)])
def test_what_is_bright_in_the_picture_is_where_the_map_says(shape):
    """The map of the padded square, made by hand: a disc at the same place of picture and map."""
    height, width = shape
    side = max(shape)
    y, x = np.mgrid[:height, :width]
    at = (0.3 * height, 0.7 * width)
    pixels = np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / (0.05 * min(shape)) ** 2)
    padded = np.zeros((side, side))
    top, left = (side - height) // 2, (side - width) // 2
    padded[top : top + height, left : left + width] = pixels
    saliency = np.asarray(Image.fromarray(padded.astype(np.float32)).resize((96, 96), Image.Resampling.BOX))
    alpha = np.asarray(opened(overlay_url(pixels, saliency / saliency.max())).convert("RGBA"))[..., 3].astype(float)
    grey = np.asarray(opened(data_url(pixels))).astype(float)

    def centre(of: np.ndarray) -> np.ndarray:
        return np.array([(index * of).sum() for index in np.indices(of.shape)]) / of.sum()

    np.testing.assert_allclose(centre(alpha), centre(grey), atol=2.5)  # a place of the map is four pixels wide


def test_the_more_a_place_counts_the_more_it_shows():
    pixels, ramp = np.zeros((128, 128)), np.tile(np.linspace(0, 1, 128, dtype=np.float32), (128, 1))
    shown = np.asarray(opened(overlay_url(pixels, ramp)).convert("RGBA")).astype(float)[64]
    assert shown[0, 3] == 0
    assert shown[-1, 3] > 200
    assert (np.diff(shown[:, 3]) >= 0).all()
    luminance = shown[:, :3] @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(luminance) >= 0).all()
    assert luminance[-1] > 200  # stands out from black
    blue = shown[:, 2] / shown[:, :2].max(axis=1)
    assert blue.max() < 0.4  # yellow against grey: the axis that the frequent colour blindnesses keep


def test_a_map_beyond_its_range_or_empty_gives_a_picture():
    for value in (0.0, -1.0, 2.0):
        alpha = np.asarray(opened(overlay_url(np.zeros((40, 40)), np.full((8, 8), value, np.float32))).convert("RGBA"))
        assert (alpha[..., 3] == (0 if value <= 0 else alpha[..., 3].max())).all()
