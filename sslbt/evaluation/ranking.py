"""Areas under the ROC and the precision-recall curve where families count several times, for many samples at once."""

import numpy as np
from scipy.sparse import csr_matrix

CELLS = 2**19  # numbers held at once, by slices and samples


def areas(
    scores: np.ndarray, positive: np.ndarray, rows: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AUROC and average precision of slices' `scores` (slices,), where family i counts weights[:, i] times.

    Slices of equal score are passed at once, as scikit-learn does it: half of such a pair is in order.

    Args:
        positive: (slices,) bool, which of them should score high.
        rows: (slices,) the family of each, a column of `weights`.
        weights: (samples, families).

    Returns:
        Two of (samples,), NaN where a sample lacks positives or negatives.
    """
    order = np.argsort(-scores, kind="stable")
    scores, positive, rows = scores[order], positive[order], rows[order]
    tie = np.cumsum(np.append(True, scores[1:] != scores[:-1])) - 1
    held = np.bincount(tie, positive) > 0
    # Only at ties that hold positives do the areas grow: a step for each, with the negatives since the step before.
    step: np.ndarray = (np.cumsum(held) - held)[tie]
    shape = (held.sum() + 1, weights.shape[1])
    gained, lost, tied = (
        csr_matrix((np.ones(which.sum()), (step[which], rows[which])), shape)
        for which in (positive, ~positive, ~positive & held[tie])
    )
    chunk = max(1, CELLS // len(scores))
    found = [_areas(gained, lost, tied, weights[begin : begin + chunk].T) for begin in range(0, len(weights), chunk)]
    roc, precision_recall = zip(*found, strict=True)
    return np.concatenate(roc), np.concatenate(precision_recall)


def _areas(
    gained: csr_matrix, lost: csr_matrix, tied: csr_matrix, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """From slices of each family at each step, (steps, families), and weights (families, samples)."""
    hits = gained @ weights
    true, false = hits.cumsum(axis=0), (lost @ weights).cumsum(axis=0)
    positives, negatives = true[-1], false[-1]
    in_order = (hits * (negatives - false + (tied @ weights) / 2)).sum(axis=0)
    precise = (hits * ratio(true, true + false, 0.0)).sum(axis=0)
    both = np.where(negatives > 0, positives, 0)
    return ratio(in_order, both * negatives), ratio(precise, both)


def ratio(part: np.ndarray, whole: np.ndarray, otherwise: float = np.nan) -> np.ndarray:
    """part / whole, `otherwise` where there is nothing to divide by."""
    return np.divide(part, whole, out=np.full(np.shape(part), otherwise), where=whole > 0)
