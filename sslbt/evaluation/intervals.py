"""Intervals by bootstrap over patients: families are drawn with replacement, since slices of one patient are alike.

A plain percentile bootstrap is too narrow for few patients, and has no width at all where none of them is wrong: of
34 patients at a true balanced accuracy of 0.967, its 95 % interval held the truth in 65 % of simulations. So the
families are drawn from themselves and, with the weight of one family a class, from a patient who is half right and
half wrong. For a share of patients that is the prior of Jeffreys, whose intervals are close to their level for any
share and number (Brown, Cai & DasGupta 2001, Interval estimation for a binomial proportion).

Measured by `benchmarks/metrics.py --coverage 300` on tests of 34 patients, 5 to 30 slices each: at accuracies of 0.66,
0.86 and 0.93 the 95 % intervals of `evaluate` hold the truth in 94 to 98 %, those of areas and specificity close to 1
in up to 100 %; at 0.99 all are wide, 97 to 100 %. Of two equally good classifiers a difference is found at p < 0.05 in
0 to 6 %. With 15 patients the intervals are wide, 96 to 100 %; with 233 (80 rounds) it is 92 to 96 %, and 1 to 8 %.
"""

from itertools import product

import numpy as np

DRAWS = 2000
TAILS = (2.5, 97.5)
APART = 0.25  # of the prior's weight, where two classifiers answer independently; alike in the rest
ROUNDING = 1e-12  # less is no difference


def resample(weights: np.ndarray, count: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """How often each family is among `count` drawn in proportion to weights (families,); (draws, families)."""
    return np.random.default_rng(seed).multinomial(count, weights / weights.sum(), draws).astype(float)


def interval(draws: np.ndarray, point: float) -> tuple[float, float]:
    """The middle 95 % of what samples gave (draws,), NaN left out; wide enough to hold what was measured."""
    known = draws[np.isfinite(draws)]
    if not len(known) or not np.isfinite(point):
        return float("nan"), float("nan")
    low, high = np.percentile(known, TAILS)
    return min(float(low), point), max(float(high), point)


def p_value(differences: np.ndarray) -> float:
    """Two-sided, of no difference: twice the share of samples (draws,) on the rarer side of zero, zeros included."""
    known = differences[np.isfinite(differences)]
    if not len(known):
        return float("nan")
    rarer = min((known <= ROUNDING).sum(), (known >= -ROUNDING).sum())
    return float(min(1.0, 2 * (rarer + 1) / (len(known) + 1)))


def mean_interval(values: np.ndarray, families: np.ndarray, draws: int = DRAWS) -> tuple[float, float, float]:
    """Mean of `values` (slices,), NaN left out, and its 95 % interval over patients; all NaN where there is no value.

    The patient of the prior has the least value in one half and the greatest in the other: 0 and 1 for yes and no.
    """
    values = np.asarray(values, float)
    known = np.isfinite(values)
    if not known.any():
        return (float("nan"),) * 3
    values = values[known]
    _, rows = np.unique(np.asarray(families)[known], return_inverse=True)
    counts, sums = np.bincount(rows), np.bincount(rows, values)
    extremes = np.array([0.0, 1.0]) if np.isin(values, (0, 1)).all() else np.array([values.min(), values.max()])
    size = len(values) / len(counts)
    weights = resample(np.append(np.ones(len(counts)), (0.5, 0.5)), len(counts), draws)
    means = weights @ np.append(sums, size * extremes) / (weights @ np.append(counts, (size, size)))
    point = float(values.mean())
    return point, *interval(means, point)


def with_prior(
    labels: np.ndarray, rows: np.ndarray, *models: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray], np.ndarray]:
    """Slices with those of the prior behind them: for each class a patient of usual size, half right and half wrong.

    Its answers are as sure as the others are on average when right, half way from there to a guess when wrong.

    Args:
        labels: (slices,) index of the true class.
        rows: (slices,) the family, 0 to families - 1.
        models: (slices, classes) probabilities by each classifier; of two, both answer for the same patients.

    Returns:
        labels, rows and models with more slices, and weights (families and more,) to draw them with.
    """
    classes, families = models[0].shape[1], rows.max() + 1
    size = round(len(rows) / families)
    cases, weights = [], []
    for truth in np.unique(labels):
        half = np.full(classes, 0.5 / max(classes - 1, 1))
        half[truth] = 0.5
        for answers in product(range(classes), repeat=len(models)):
            alike = half[answers[0]] * (len(set(answers)) == 1)
            weights.append(APART * np.prod(half[list(answers)]) + (1 - APART) * alike)
            cases.append((truth, *answers))
    truths, *answered = np.repeat(np.array(cases), size, axis=0).T
    more = np.repeat(np.arange(len(cases)), size) + families
    return (
        np.append(labels, truths),
        np.append(rows, more),
        [np.vstack([own, _answers(own, taken, truths)]) for own, taken in zip(models, answered, strict=True)],
        np.append(np.ones(families), weights),
    )


def _answers(probabilities: np.ndarray, taken: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """Probabilities by which the classes `taken` are chosen, (len(taken), classes)."""
    classes = probabilities.shape[1]
    sure = probabilities.max(axis=1).mean()
    top = np.where(taken == truths, sure, (sure + 1 / classes) / 2)[:, None]
    return np.where(np.arange(classes) == taken[:, None], top, (1 - top) / max(classes - 1, 1))
