"""How well saliency maps find the tumour that a radiologist outlined."""

import numpy as np
import pandas as pd
import torch

from sslbt.data.preprocess import resize
from sslbt.evaluation.intervals import mean_interval

TOLERANCE = 15 / 224  # of the side: how far beside the tumour a pointer still counts, as the pointing game has it
FIGURES = ("pointing", "inside", "share")
SIZES = ("small", "middle", "large")


def localise(maps: np.ndarray, masks: np.ndarray) -> pd.DataFrame:
    """`FIGURES` of maps (n, size, size) on masks (n, size, size) bool, by slice; NaN without a tumour.

    pointing: 1 where the map's maximum lies in the tumour, or within 15 pixels of 224 of it (Zhang et al. 2016,
        arXiv:1608.00507), else 0.
    inside: 1 where it lies in the tumour itself: the tolerance is kind to maps that only know where tumours are common.
    share: of the map's sum, how much lies in the tumour (energy-based pointing game, Wang et al. 2020,
        arXiv:1910.01279). NaN too where the map is all zero.
    """
    side = maps.shape[1]
    found = np.full((len(maps), len(FIGURES)), np.nan)
    for row, (values, mask) in enumerate(zip(maps, masks, strict=True)):
        if mask.any():
            place = np.unravel_index(values.argmax(), values.shape)
            distance = np.hypot(*(np.argwhere(mask) - place).T).min()
            total = values.sum(dtype=float)
            found[row] = (
                distance <= TOLERANCE * side,
                distance == 0,
                values[mask].sum(dtype=float) / total if total > 0 else np.nan,
            )
    return pd.DataFrame(found, columns=FIGURES)


def centre_prior(size: int) -> np.ndarray:
    """A map that knows no picture, (size, size): a Gaussian around the middle, a sixth of the side wide."""
    along = np.exp(-(((np.arange(size) - (size - 1) / 2) / (size / 6)) ** 2) / 2)
    return np.outer(along, along).astype(np.float32)


def localisation_table(
    maps_by_method: dict[str, np.ndarray],
    masks: np.ndarray,
    labels: np.ndarray,
    classes: tuple[str, ...],
    families: np.ndarray,
) -> pd.DataFrame:
    """Pointing and share of each method, over all slices with a tumour mask, by class and by tumour size.

    Args:
        maps_by_method: (slices, size, size) each.
        masks: (slices, side, side) bool, brought to the maps' size; all False where none is known.
        labels: (slices,) indices into `classes`.
        families: (slices,), for the intervals over patients.

    Returns:
        method, by (`all`, `class`, `tumour size`), group, slices, then `FIGURES`, each with its 95 % interval
        as `_ci_low` and `_ci_high`.
    """
    known = masks.any(axis=(1, 2))
    masks, labels, families = masks[known], labels[known], families[known]
    groups = _groups(masks.mean(axis=(1, 2)), labels, classes)
    rows: list[dict] = []
    for method, maps in maps_by_method.items():
        found = localise(maps[known], _resized(masks, maps.shape[1]))
        for by, group, inside in groups:
            row = {"method": method, "by": by, "group": group, "slices": int(inside.sum())}
            for figure in found.columns:
                names = (figure, f"{figure}_ci_low", f"{figure}_ci_high")
                row |= zip(names, mean_interval(found[figure][inside].to_numpy(), families[inside]), strict=True)
            rows.append(row)
    return pd.DataFrame(rows, columns=_COLUMNS)


_MEASURED = [f"{figure}{end}" for figure in FIGURES for end in ("", "_ci_low", "_ci_high")]
_COLUMNS = ["method", "by", "group", "slices", *_MEASURED]


def _groups(area: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> list[tuple[str, str, np.ndarray]]:
    """by, group, and which slices belong to it; groups without any are left out."""
    if not len(area):
        return []
    limits = np.quantile(area, [1 / 3, 2 / 3])
    third = np.searchsorted(limits, area)
    low, high = (f"{limit:.1%}".replace("%", " %") for limit in limits)
    ranges = (f"up to {low} of the picture", f"{low} to {high}", f"above {high}")
    groups = [("all", "all", np.full(len(area), True))]
    groups += [("class", name, labels == i) for i, name in enumerate(classes)]
    groups += [("tumour size", f"{SIZES[i]}, {ranges[i]}", third == i) for i in range(3)]
    return [group for group in groups if group[2].any()]


def _resized(masks: np.ndarray, size: int) -> np.ndarray:
    """Masks (n, side, side) at the maps' size; of a tumour too small for half a pixel there its densest pixels stay."""
    if masks.shape[1] == size or not len(masks):
        return masks
    shares = resize(torch.from_numpy(masks).unsqueeze(1).float(), size)[:, 0].numpy()
    return shares >= np.minimum(0.5, shares.max(axis=(1, 2), keepdims=True))
