"""Which slices to label where labels are dear: a few that stand for all of them, of as many patients."""

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize

STARTS = 10  # of k-means, the best counts


def stand_for_all(features: np.ndarray, families: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Rows to label first, in rising order (the cold start of active learning, as Hacohen et al. 2022, "TypiClust").

    Slices of a patient are alike and of one class, so that a second one tells little: k-means looks at the mean slice
    of every family, which counts as often as the family has slices, and from the family nearest to each centre comes
    the slice nearest to its mean. With more slices than families these take turns.

    Args:
        features: (slices, channels) of a pretrained encoder.
        families: (slices,) whose they are.
        count: how many, at most all.
        seed: where k-means starts.
    """
    unit = normalize(features.astype(np.float64))
    unit = normalize(unit - unit.mean(axis=0))  # by the cosine of what sets slices apart
    _, own, slices = np.unique(families, return_inverse=True, return_counts=True)
    means = np.zeros((len(slices), unit.shape[1]))
    np.add.at(means, own, unit / slices[own, None])

    shares = np.zeros(len(slices), int)
    while left := count - shares.sum():
        free = np.flatnonzero(shares < slices)
        shares[free[_central(means[free], slices[free], min(left, len(free)), seed)]] += 1
    rows = [np.flatnonzero(own == family) for family in range(len(slices))]
    chosen = [
        rows[family][_central(unit[rows[family]], np.ones(slices[family]), shares[family], seed)]
        for family in np.flatnonzero(shares)
    ]
    return np.sort(np.concatenate(chosen))


def _central(points: np.ndarray, weights: np.ndarray, count: int, seed: int) -> np.ndarray:
    """So many of these points, one near each centre that k-means finds."""
    if count == len(points):
        return np.arange(count)
    centres = KMeans(count, n_init=STARTS, random_state=seed).fit(points, sample_weight=weights)
    return linear_sum_assignment(centres.transform(points).T)[1]  # of two centres with one nearest, one takes the next
