"""Pictures of different patients that show the same: copies that a split by patient would put on both sides."""

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 64  # pixels a side at which pictures are compared
FINE = 9  # what is blurred over more of them is left out: all heads look alike from afar
NEAR = 0.9  # on the real slices other patients reach 0.85; saved as JPEG, smaller, brighter or noisier they keep 0.96
COARSE = 0.8  # at half the pixels a side, where all are compared with all, pairs above NEAR keep 0.86
BLOCK = 512  # slices compared with all others at a time
FEW = 64  # slices reduced at a time
MOST = 10_000  # pairs: who has more knows enough


def similar_pairs(pixels: np.ndarray, families: np.ndarray) -> pd.DataFrame:
    """Pairs of slices of different families whose fine structure is the same, mirrored or not.

    Finds a copy that was compressed, rescaled, brightened or mirrored; not one that was cropped or turned.

    Args:
        pixels: (slices, 256, 256) uint8.
        families: (slices,) whose slice it is.

    Returns:
        first, second (rows, first < second) and likeness, the correlation of their details: 1 for the same picture.
    """
    coarse = torch.cat([_halved(_details(part)) for part in np.array_split(pixels, max(1, len(pixels) // FEW))])
    mirrored = _mirrored(coarse)
    number = torch.from_numpy(pd.factorize(families)[0])
    found: list[tuple[int, int, float]] = []
    for start in range(0, len(coarse), BLOCK):
        end, rest = start + BLOCK, coarse[start:].T
        likeness = torch.maximum(coarse[start:end] @ rest, mirrored[start:end] @ rest).triu(1)
        likeness[number[start:end].unsqueeze(1) == number[start:]] = 0  # slices of one family may look alike
        candidates = torch.nonzero(likeness > COARSE)[:MOST] + start
        for first, second in (pair.T.numpy() for pair in candidates.split(FEW)):
            exact = _likeness(_details(pixels[first]), _details(pixels[second]))
            found += [
                pair for pair in zip(first.tolist(), second.tolist(), exact.tolist(), strict=True) if pair[2] > NEAR
            ]
        if len(found) >= MOST:
            break
    found = sorted(((a, b, round(near, 4)) for a, b, near in found[:MOST]), key=lambda pair: -pair[2])
    return pd.DataFrame(found, columns=["first", "second", "likeness"])


def _details(pixels: np.ndarray) -> Tensor:
    """(slices, 64 * 64) local contrast, of length 1 each, so that a product of two is their correlation."""
    step = pixels.shape[1] // SIDE
    small = F.avg_pool2d(torch.from_numpy(pixels[:, None].astype(np.float32)), step)
    fine = small - F.avg_pool2d(small, FINE, 1, FINE // 2, count_include_pad=False)
    return F.normalize((fine - fine.mean((2, 3), keepdim=True)).flatten(1))


def _halved(details: Tensor) -> Tensor:
    side = round(details.shape[1] ** 0.5)
    return F.normalize(F.avg_pool2d(details.view(-1, 1, side, side), 2).flatten(1))


def _mirrored(details: Tensor) -> Tensor:
    side = round(details.shape[1] ** 0.5)
    return details.view(-1, side, side).flip(2).flatten(1)


def _likeness(first: Tensor, second: Tensor) -> Tensor:
    return torch.maximum((first * second).sum(1), (_mirrored(first) * second).sum(1))
