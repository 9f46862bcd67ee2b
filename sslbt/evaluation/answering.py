"""When to answer: sets of classes with a stated guarantee for new patients, and what answering less often buys.

A slice gets every class whose probability reaches a threshold; one class alone in the set is an answer, anything else
is left to a person. The threshold comes from validation patients by conformal prediction (Vovk et al. 2005), in the
form for several slices of one patient (Lee, Barber and Willett 2023, "Distribution-free inference with hierarchical
data", arXiv:2306.06342): whatever the classifier, the set of a random slice of a new patient, drawn like these, holds
the true class with at least the stated probability. Slices of one patient may be as alike as they wish.
"""

import numpy as np
import pandas as pd

from sslbt.evaluation.intervals import mean_interval
from sslbt.evaluation.metrics import Predictions

LEVEL = 0.9
STEPS = 20  # points of the curve


def plausible_above(predictions: Predictions, level: float = LEVEL) -> tuple[float, float]:
    """The threshold of the sets, and the level they reach.

    Args:
        predictions: of validation patients, on whom the classifier was not trained.
        level: the share of new patients' slices whose set shall hold the true class. Fewer than level / (1 - level)
            patients can't promise so much; then it is what they can.
    """
    _, whose, slices = np.unique(predictions.families, return_inverse=True, return_counts=True)
    patients = len(slices)
    level = min(level, patients / (patients + 1))
    of_truth = predictions.probabilities[np.arange(len(predictions.labels)), predictions.labels]
    # Every patient weighs the same, shared by his slices, and so does one more of whom nothing is known (eq. 6).
    weights = 1 / slices[whose] / (patients + 1)
    order = np.argsort(-of_truth)
    enough = np.cumsum(weights[order]) >= level - 1e-9
    return float(of_truth[order][enough.argmax()]) if enough.any() else 0.0, float(level)


def sets(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Which classes are plausible, (slices, classes) bool."""
    return probabilities >= threshold


def over_patients(values: np.ndarray, families: np.ndarray) -> tuple[float, float, float]:
    """Mean of `values` (slices,) in which each patient weighs the same, as in the promise, and its 95 % interval."""
    own = pd.Series(values.astype(float)).groupby(families).mean()
    return mean_interval(own.to_numpy(), own.index.to_numpy())


def curve(predictions: Predictions) -> pd.DataFrame:
    """Accuracy over the surest share of the slices: coverage, accuracy, accuracy_ci_low, accuracy_ci_high.

    The risk-coverage curve (Geifman and El-Yaniv 2017) upside down. Slices count as sure as their likeliest class is.
    """
    order = np.argsort(-predictions.probabilities.max(axis=1), kind="stable")
    right = (predictions.predicted == predictions.labels)[order].astype(float)
    families = predictions.families[order]
    rows = []
    for coverage in np.arange(1, STEPS + 1) / STEPS:
        count = max(1, round(coverage * len(order)))
        rows.append((coverage, *mean_interval(right[:count], families[:count])))
    return pd.DataFrame(rows, columns=["coverage", "accuracy", "accuracy_ci_low", "accuracy_ci_high"])
