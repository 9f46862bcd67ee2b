"""Pixels and masks of any size as the cache holds them: square, 256 a side, in 256 levels of the slice's own range.

Torch-free, so that the processes that read start in a moment.
"""

import numpy as np
from PIL import Image

SIDE = 256  # pixels a side in the cache; networks take this or less
CLIPPED = SIDE * SIDE // 100  # the darkest and the brightest percent saturate


def normalise(pixels: np.ndarray) -> np.ndarray:
    """(height, width) pixels to (256, 256) uint8: `preprocess.Preprocess` without torch, rounded to 256 levels."""
    # Transposed as MATLAB's files are, the copy to float32 takes ten times as long; the result is the same.
    turned = pixels.flags.f_contiguous
    image = (pixels.T if turned else pixels).astype(np.float32, order="C")
    image -= image.min()  # first, or far from zero the fractions of what follows are lost
    square = to_square(image)
    picture = Image.frombuffer("F", square.shape[::-1], square, "raw", "F", 0, 1)
    small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    low, high = np.partition(small, (CLIPPED - 1, -CLIPPED), axis=None)[[CLIPPED - 1, -CLIPPED]]
    with np.errstate(over="ignore"):  # where all but a few pixels are equal
        levels = ((small - low) * (255 / max(high - low, 1e-30))).clip(0, 255).round().astype(np.uint8)
    return levels.T if turned else levels


def shrink(mask: np.ndarray) -> np.ndarray:
    """(height, width) bool to (256, 256) bool, where `normalise` puts the same pixels.

    A tumour covers a pixel if it covers more than half of what that is made of; one too thin for that covers those
    that its own pixels fall into.
    """
    turned = mask.flags.f_contiguous  # as MATLAB's files are, see `normalise`
    square = to_square(mask.T if turned else mask)
    side, small = len(square), np.zeros((SIDE, SIDE), bool)
    y, x = (np.flatnonzero(square.any(axis)) for axis in (1, 0))
    if y.size:
        # Just around the tumour, which is four times as fast: further off, less than half of a pixel is covered.
        top, left = (int(own[0] * SIDE // side) for own in (y, x))
        bottom, right = (int(-(-(own[-1] + 1) * SIDE // side)) for own in (y, x))
        scale = side / SIDE
        share = Image.fromarray(square * np.uint8(254)).resize(  # half of which is a whole number
            (right - left, bottom - top),
            Image.Resampling.BILINEAR,
            (left * scale, top * scale, right * scale, bottom * scale),
        )
        small[top:bottom, left:right] = np.asarray(share) > 127
        if not small.any():
            y, x = np.nonzero(square)
            small[y * SIDE // side, x * SIDE // side] = True
    return small.T if turned else small


def to_square(image: np.ndarray) -> np.ndarray:
    """Pad (height, width) with zeros to the longer side, picture in the middle."""
    height, width = image.shape
    side = max(height, width)
    if height == width:
        return image
    square = np.zeros((side, side), image.dtype)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square
