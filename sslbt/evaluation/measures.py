"""Figures of classification for many samples of families at once, in which a family of slices counts several times.

A measure takes labels (slices,), rows (slices,), which is the family of each, probabilities (slices, classes), weights
(samples, families) and names of the classes; it gives each figure as (samples,), NaN where a sample leaves it without
meaning. Figures of single classes, each against the rest, come only where classes are named.
"""

from collections.abc import Callable, Sequence

import numpy as np

from sslbt.evaluation.ranking import areas, ratio

BINS = 15  # of confidence, for the calibration error
Draws = dict[str, np.ndarray]
Measure = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Sequence[str]], Draws]


def everything(
    labels: np.ndarray, rows: np.ndarray, probabilities: np.ndarray, weights: np.ndarray, classes: Sequence[str]
) -> Draws:
    """All the measures below."""
    measures = (counted, ranked, calibrated)
    found = [measure(labels, rows, probabilities, weights, classes) for measure in measures]
    return {name: values for own in found for name, values in own.items()}


def counted(
    labels: np.ndarray, rows: np.ndarray, probabilities: np.ndarray, weights: np.ndarray, classes: Sequence[str]
) -> Draws:
    """What follows from right and wrong: accuracy, its mean over classes, macro F1; recall and specificity of each."""
    predicted = probabilities.argmax(axis=1)
    shape = weights.shape[1], probabilities.shape[1]
    held = weights @ _by_family(rows, labels, shape)
    taken = weights @ _by_family(rows, predicted, shape)
    right = weights @ _by_family(rows, labels, shape, predicted == labels)
    total = held.sum(axis=1, keepdims=True)
    recall = ratio(right, held)
    f1 = np.where(held > 0, ratio(2 * right, held + taken), np.nan)  # of classes that a sample holds
    specificity = ratio(total - held - taken + right, total - held)
    whole = {
        "accuracy": right.sum(axis=1) / total[:, 0],
        "balanced_accuracy": _known_mean(recall),
        "macro_f1": _known_mean(f1),
    }
    return whole | _by_class("recall", recall, classes) | _by_class("specificity", specificity, classes)


def ranked(
    labels: np.ndarray, rows: np.ndarray, probabilities: np.ndarray, weights: np.ndarray, classes: Sequence[str]
) -> Draws:
    """Areas under ROC and precision-recall curve, one class against the rest; macro over classes with both sides."""
    found = [areas(column, labels == number, rows, weights) for number, column in enumerate(probabilities.T)]
    auroc, auprc = (np.stack(own, axis=1) for own in zip(*found, strict=True))
    whole = {"macro_auroc": _known_mean(auroc), "macro_auprc": _known_mean(auprc)}
    return whole | _by_class("auroc", auroc, classes) | _by_class("auprc", auprc, classes)


def calibrated(
    labels: np.ndarray, rows: np.ndarray, probabilities: np.ndarray, weights: np.ndarray, classes: Sequence[str]
) -> Draws:
    """Expected calibration error, and the Brier score from 0 to 2 (Brier 1950: squared errors, all classes added)."""
    families = weights.shape[1]
    total = weights @ np.bincount(rows, minlength=families)
    gaps = weights @ calibration_gaps(labels, rows, probabilities, families)
    errors = np.bincount(rows, brier_errors(labels, probabilities), families)
    return {"ece": np.abs(gaps).sum(axis=1) / total, "brier": weights @ errors / total}


def brier_errors(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Squared errors of each slice, all classes added, (slices,)."""
    own = np.arange(probabilities.shape[1]) == labels[:, None]
    return np.square(probabilities - own).sum(axis=1)


def calibration_gaps(
    labels: np.ndarray, rows: np.ndarray, probabilities: np.ndarray, families: int, bins: int = BINS
) -> np.ndarray:
    """Right answers less confidence, added up in bins of confidence, (families, bins)."""
    confidence = probabilities.max(axis=1)
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    return _by_family(rows, number, (families, bins), (probabilities.argmax(axis=1) == labels) - confidence)


def of_slices_and_patients(
    measure: Measure,
    labels: np.ndarray,
    rows: np.ndarray,
    probabilities: np.ndarray,
    weights: np.ndarray,
    classes: Sequence[str],
) -> Draws:
    """A measure of slices, and of patients as `patient_...`."""
    own, means = majority_and_mean(labels, rows, probabilities)
    patients = measure(own, np.arange(len(own)), means, weights, classes)
    slices = measure(labels, rows, probabilities, weights, classes)
    return slices | {f"patient_{name}": values for name, values in patients.items()}


def majority_and_mean(labels: np.ndarray, rows: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The class most slices of each family have, (families,), and their mean probabilities, (families, classes)."""
    held = _by_family(rows, labels, (rows.max() + 1, probabilities.shape[1]))
    sums = [np.bincount(rows, column, len(held)) for column in probabilities.T]
    return held.argmax(axis=1), np.stack(sums, axis=1) / held.sum(axis=1, keepdims=True)


def _by_family(
    rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int], values: np.ndarray | None = None
) -> np.ndarray:
    """Slices, or their values added up, in a table of families and columns."""
    return np.bincount(rows * shape[1] + columns, values, shape[0] * shape[1]).reshape(shape)


def _by_class(name: str, values: np.ndarray, classes: Sequence[str]) -> Draws:
    return {f"{name}_{own}": column for own, column in zip(classes, values.T, strict=False)}


def _known_mean(values: np.ndarray) -> np.ndarray:
    """Mean over classes (samples, classes), NaN left out."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0).sum(axis=1), known.sum(axis=1))
