"""A picture small and bright enough to look at in a browser, and where the model looked to lay over it."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

SIDE = 384
# Where the model looked, by degrees: from nothing over orange to yellow, which no blindness of colours takes for grey.
# On black as on white one of the two stands out.
LEVELS = 64
DEGREES = np.array([0, 0.25, 0.5, 0.75, 1])
COLOURS = np.array([(190, 50, 0), (210, 65, 0), (235, 90, 0), (250, 150, 0), (255, 235, 80)])
OPAQUE = np.array([0, 0.15, 0.5, 0.75, 0.9])


def data_url(pixels: np.ndarray) -> str:
    """Pixels (height, width) of any number type as a PNG in a `data:` address, at most 384 pixels a side."""
    step = max(1, max(pixels.shape) // 1024)  # a coarse grid first: a 64-megapixel picture would take seconds
    grid = pixels[::step, ::step].astype(np.float64)
    low, high = np.percentile(grid, (0.5, 99.5))
    if low == high:
        low, high = grid.min(), grid.max()
    grey = np.clip((grid - low) / max(high - low, np.finfo(np.float64).tiny), 0, 1) * 255
    picture = Image.fromarray(grey.astype(np.uint8))
    return _png(picture.resize(_size(pixels), Image.Resampling.BICUBIC))


def overlay_url(pixels: np.ndarray, saliency: np.ndarray) -> str:
    """A map as a transparent PNG in a `data:` address that fits over the preview of the same pixels.

    Args:
        pixels: (height, width), of which the shape counts.
        saliency: (side, side) in [0, 1], of the pixels padded to a square with the picture in its middle.
    """
    height, width = pixels.shape
    scale = len(saliency) / max(height, width)
    left, top = ((max(height, width) - own) // 2 * scale for own in (width, height))
    box = (left, top, left + width * scale, top + height * scale)
    own = Image.fromarray(saliency.astype(np.float32)).resize(_size(pixels), Image.Resampling.BILINEAR, box)
    shown = Image.fromarray((np.asarray(own).clip(0, 1) * (LEVELS - 1)).round().astype(np.uint8))
    degree = np.linspace(0, 1, LEVELS)
    palette = np.stack([np.interp(degree, DEGREES, colour) for colour in COLOURS.T], axis=1)
    shown.putpalette(palette.round().astype(np.uint8).tobytes())
    return _png(shown, transparency=(255 * np.interp(degree, DEGREES, OPAQUE)).round().astype(np.uint8).tobytes())


def _size(pixels: np.ndarray) -> tuple[int, int]:
    """Width and height of the preview."""
    height, width = pixels.shape
    scale = min(1.0, SIDE / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _png(picture: Image.Image, **how: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **how)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
