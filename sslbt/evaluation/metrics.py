"""How good predictions are, per slice and per patient, with intervals over patients.

A patient is a family here (see `sslbt.data.cache.family`): slices of what may be one person count as one.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

DRAWS = 2000
Metrics = dict[str, float]


@dataclass(frozen=True)
class Predictions:
    """Probabilities of a set of slices beside the truth."""

    labels: np.ndarray  # (slices,) index of the true class
    probabilities: np.ndarray  # (slices, classes)
    families: np.ndarray  # (slices,) whose slice it is
    files: np.ndarray  # (slices,) its file name

    @property
    def predicted(self) -> np.ndarray:
        return self.probabilities.argmax(axis=1)

    def by_patient(self) -> "Predictions":
        """One row a family: the mean of its probabilities, and the class most of its slices have."""
        probabilities = pd.DataFrame(self.probabilities).groupby(self.families).mean()
        labels = pd.Series(self.labels).groupby(self.families).agg(lambda own: own.mode().iloc[0])
        names = probabilities.index.to_numpy()
        return Predictions(labels.to_numpy(), probabilities.to_numpy(), names, names)

    def table(self, classes: tuple[str, ...]) -> pd.DataFrame:
        """As people read it: file, family, class, predicted, p_..."""
        named = {"file": self.files, "family": self.families, "class": np.array(classes)[self.labels]}
        named["predicted"] = np.array(classes)[self.predicted]
        return pd.DataFrame(named | {f"p_{name}": self.probabilities[:, i] for i, name in enumerate(classes)})

    @staticmethod
    def from_table(table: pd.DataFrame, classes: tuple[str, ...]) -> "Predictions":
        """Undo `table`."""
        labels = table["class"].map({name: i for i, name in enumerate(classes)}).to_numpy(int)
        probabilities = table[[f"p_{name}" for name in classes]].to_numpy(float)
        return Predictions(labels, probabilities, table.family.to_numpy(str), table.file.to_numpy(str))


def evaluate(predictions: Predictions, classes: tuple[str, ...]) -> Metrics:
    """All figures of one set of predictions; the headline ones with 95 % intervals, `_ci_low` and `_ci_high`."""
    patients = predictions.by_patient()
    labels, probabilities = predictions.labels, predictions.probabilities
    metrics = headline(predictions) | {
        "macro_auroc": macro_auroc(labels, probabilities),
        "ece": expected_calibration_error(labels, probabilities),
        "brier": float(np.square(probabilities - np.eye(len(classes))[labels]).sum(axis=1).mean()),
        "patient_macro_auroc": macro_auroc(patients.labels, patients.probabilities),
    }
    for index, name in enumerate(classes):
        if (labels == index).any():
            metrics[f"recall_{name}"] = float((predictions.predicted[labels == index] == index).mean())
    for name, draws in bootstrap(predictions).items():
        metrics[f"{name}_ci_low"], metrics[f"{name}_ci_high"] = np.nanpercentile(draws, [2.5, 97.5]).tolist()
    return metrics


def headline(predictions: Predictions) -> Metrics:
    """Accuracy, balanced accuracy and macro F1 of slices; accuracy and balanced accuracy of patients."""
    whole = np.ones((1, len(np.unique(predictions.families))))
    return {name: float(draws[0]) for name, draws in _resampled(predictions, whole).items()}


def macro_auroc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Area under the ROC curve, one class against the rest, mean over classes that have both sides."""
    areas = [
        roc_auc_score(labels == index, probabilities[:, index])
        for index in range(probabilities.shape[1])
        if 0 < (labels == index).sum() < len(labels)
    ]
    return float(np.mean(areas)) if areas else float("nan")


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> float:
    """Gap between confidence and accuracy, over bins of equal width, weighed by size (Guo et al. 2017, eq. 3)."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(number, correct - confidence, bins)
    return float(np.abs(gaps).sum() / len(labels))


def bootstrap(predictions: Predictions, draws: int = DRAWS, seed: int = 0) -> dict[str, np.ndarray]:
    """Headline figures of `draws` samples of the patients, drawn with replacement; (draws,) each."""
    patients = len(np.unique(predictions.families))
    return _resampled(predictions, _weights(patients, draws, seed))


def paired_difference(
    ours: Predictions, theirs: Predictions, name: str, draws: int = DRAWS, seed: int = 0
) -> np.ndarray:
    """How much more `ours` has of a headline figure in the same samples of the same patients, (draws,).

    Raises:
        ValueError: the two are not about the same slices.
    """
    if _truth(ours) != _truth(theirs):
        raise ValueError("a paired comparison needs predictions of the same slices")
    weights = _weights(len(np.unique(ours.families)), draws, seed)
    return _resampled(ours, weights)[name] - _resampled(theirs, weights)[name]


def _truth(predictions: Predictions) -> list[tuple]:
    return sorted(zip(predictions.files, predictions.families, predictions.labels, strict=True))


def _weights(patients: int, draws: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.multinomial(patients, np.full(patients, 1 / patients), size=draws).astype(float)


def _resampled(predictions: Predictions, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Headline figures where family i (in sorted order) counts weights[:, i] times, (draws,) each."""
    patients = predictions.by_patient()
    slices = weights @ _hits(predictions, patients.families)
    people = weights @ _hits(patients, patients.families)
    return {
        "accuracy": _accuracy(slices),
        "balanced_accuracy": _balanced(slices),
        "macro_f1": _macro_f1(slices),
        "patient_accuracy": _accuracy(people),
        "patient_balanced_accuracy": _balanced(people),
    }


def _hits(predictions: Predictions, order: np.ndarray) -> np.ndarray:
    """Per family: slices of each class, those that were taken for it, those of it got right; (families, 3 classes)."""
    classes = predictions.probabilities.shape[1]
    counts = np.zeros((len(order), 3 * classes))
    row = np.searchsorted(order, predictions.families)
    np.add.at(counts, (row, predictions.labels), 1)
    np.add.at(counts, (row, classes + predictions.predicted), 1)
    np.add.at(counts, (row, 2 * classes + predictions.labels), predictions.predicted == predictions.labels)
    return counts


def _accuracy(counts: np.ndarray) -> np.ndarray:
    total, _, right = np.split(counts, 3, axis=1)
    return right.sum(axis=1) / total.sum(axis=1)


def _balanced(counts: np.ndarray) -> np.ndarray:
    """Mean recall of the classes that a sample holds."""
    total, _, right = np.split(counts, 3, axis=1)
    return _mean_of_held(right, total, total)


def _macro_f1(counts: np.ndarray) -> np.ndarray:
    """Mean F1 of the classes that a sample holds."""
    total, taken, right = np.split(counts, 3, axis=1)
    return _mean_of_held(2 * right, total + taken, total)


def _mean_of_held(part: np.ndarray, whole: np.ndarray, total: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=total > 0).mean(axis=1, where=total > 0)
