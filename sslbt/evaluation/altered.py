"""Slices with a part taken away, to ask a trained classifier what it goes by.

If it answers as well without the tumour, or from the air around the head, it goes by something else.
"""

from collections.abc import Iterator

import numpy as np
import torch
from scipy import ndimage, sparse
from scipy.fft import irfft2, rfft2
from scipy.sparse.linalg import spsolve
from torch import Tensor

MARGIN = 1 / 40  # of the picture's side: how far beyond its outline a tumour is taken away, with its enhancing rim
RING = 1 / 25  # of the side: how far around a hole the surroundings count
AIR = 0.08  # of the picture's range: darker is no tissue
NEAREST = 0.25  # share of the free places that are near enough to stand for the tumour's own


def without_tumour(slices: Tensor, masks: np.ndarray) -> Tensor:
    """The tumour and a margin around it replaced by what its surroundings suggest.

    What a tumour does elsewhere stays: oedema beyond the margin, shifted ventricles.

    Args:
        slices: (n, 1, side, side) in [0, 1].
        masks: (n, side, side) bool, where the tumour is; a slice with an empty mask stays as it is.
    """
    filled = [_fill(picture, head(picture), _grown(mask)) for picture, mask in _pairs(slices, masks)]
    return _together(filled)


def without_as_much(slices: Tensor, masks: np.ndarray, seed: int) -> Tensor:
    """A region of the tumour's size and shape taken away elsewhere in the head: the measure for `without_tumour`.

    It lies near the tumour, at random, within the head and clear of the tumour as far as there is room.
    """
    generator = np.random.default_rng(seed)
    filled = []
    for picture, mask in _pairs(slices, masks):
        inside = head(picture)
        filled.append(_fill(picture, inside, _elsewhere(inside, _grown(mask), generator)))
    return _together(filled)


def background_only(slices: Tensor) -> Tensor:
    """The head replaced by one grey, that of the air: only air, its noise and artefacts in it are left.

    Where the air is not as flat as the grey, the outline of the head can be seen, and with it the plane.
    """
    return _together([_without_head(picture) for picture in slices[:, 0].numpy()])


def head(picture: np.ndarray) -> np.ndarray:
    """Where the head is in a slice (side, side): its largest bright region, without gaps, (side, side) bool."""
    side = len(picture)
    smooth = ndimage.gaussian_filter(picture, side / 256)
    closed = _closed(smooth > AIR, round(side / 20))
    regions, _ = ndimage.label(closed)
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    return ndimage.binary_fill_holes(regions == sizes.argmax()) if sizes.any() else closed


def _pairs(slices: Tensor, masks: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return zip(slices[:, 0].numpy(), masks, strict=True)


def _together(pictures: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(pictures)[:, None]).float()


def _without_head(picture: np.ndarray) -> np.ndarray:
    inside = _within(head(picture), len(picture) * MARGIN)
    return np.where(inside, np.median(picture[~inside]) if not inside.all() else 0, picture)


def _grown(mask: np.ndarray) -> np.ndarray:
    return _within(mask, len(mask) * MARGIN)


def _within(region: np.ndarray, distance: float) -> np.ndarray:
    """Pixels at most so far from a region."""
    return ndimage.distance_transform_edt(~region) <= distance if region.any() else region


def _closed(region: np.ndarray, distance: int) -> np.ndarray:
    """The region with gaps narrower than twice the distance closed; the picture's edge is no gap."""
    padded = np.pad(region, distance, mode="edge")
    closed = ndimage.distance_transform_edt(_within(padded, distance)) > distance
    return closed[distance:-distance, distance:-distance] | region


def _fill(picture: np.ndarray, inside: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """A hole (side, side) filled smoothly from its edge inwards (Laplace's equation), with the surroundings' grain.

    The greys at the edge are brought between the quartiles of the head (`inside`) first: else bone, a bright vessel or
    the air of a sinus at one side of the edge would reach far into the hole.
    """
    ring = _within(hole, len(picture) * RING) & ~hole
    if not (ring.any() and inside.any()):
        return picture
    grain = picture - ndimage.gaussian_filter(picture, 1)
    deviation = 1.4826 * np.median(np.abs(grain[ring]))
    noise = np.random.default_rng(0).normal(0, deviation, picture.shape)  # the same wherever the slice is asked
    filled = picture.copy()
    filled[hole] = _membrane(picture.clip(*np.percentile(picture[inside], [25, 75])), hole)
    return np.where(hole, (filled + noise).clip(0, 1), picture)


def _membrane(picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Each pixel of the hole as the mean of its four neighbours, (pixels of the hole,)."""
    row, column = np.nonzero(hole)
    number = np.cumsum(hole).reshape(hole.shape) - 1
    own = np.arange(len(row))
    system = sparse.coo_array((np.full(len(own), 4.0), (own, own)), (len(own), len(own))).tocsc()
    known = np.zeros(len(own))
    for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        near = (row + down).clip(0, len(hole) - 1), (column + right).clip(0, len(hole) - 1)
        inside = hole[near]
        links = np.ones(inside.sum()), (own[inside], number[near][inside])
        system = system - sparse.coo_array(links, system.shape).tocsc()
        known += np.where(inside, 0, picture[near])
    return spsolve(system, known)


def _elsewhere(inside: np.ndarray, region: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The region moved to where it covers only head without tumour (or most of it): one of the nearest such places."""
    if not region.any():
        return region
    taken = _within(region, 1) | ~inside
    size = [2 * len(region)] * 2  # so that a region that leaves on one side does not come in on the other
    covered = irfft2(rfft2(np.pad(taken, (0, len(region)), constant_values=True)) * rfft2(region, size).conj(), size)
    down, right = np.nonzero(covered < covered.min() + 0.5)
    down, right = ((shift + len(region)) % size[0] - len(region) for shift in (down, right))
    order = np.argsort(np.hypot(down, right))
    chosen = order[generator.integers(max(1, round(NEAREST * len(order))))]
    return ndimage.shift(region, (down[chosen], right[chosen]), order=0)
