"""How good predictions are, per slice and per patient, with intervals over patients.

A patient is a family here (see `sslbt.data.cache.family`): slices of what may be one person count as one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from sslbt.evaluation.intervals import DRAWS, interval, p_value, resample, with_prior
from sslbt.evaluation.measures import (
    BINS,
    Draws,
    Measure,
    brier_errors,
    calibration_gaps,
    counted,
    everything,
    majority_and_mean,
    of_slices_and_patients,
)

HEADLINES = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "macro_auroc",
    "ece",
    "brier",
    "patient_accuracy",
    "patient_balanced_accuracy",
)  # whose intervals are worth logging
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

    def only(self, which: np.ndarray) -> "Predictions":
        """Of these slices: indices or a mask."""
        return Predictions(self.labels[which], self.probabilities[which], self.families[which], self.files[which])

    def by_patient(self) -> "Predictions":
        """One row a family: the mean of its probabilities, and the class most of its slices have."""
        names, rows = np.unique(self.families, return_inverse=True)
        return Predictions(*majority_and_mean(self.labels, rows, self.probabilities), names, names)

    def table(self, classes: tuple[str, ...]) -> pd.DataFrame:
        """As people read it: file, family, class, predicted, p_..."""
        named = {"file": self.files, "family": self.families, "class": np.array(classes)[self.labels]}
        named["predicted"] = np.array(classes)[self.predicted]
        return pd.DataFrame(named | {f"p_{name}": self.probabilities[:, i] for i, name in enumerate(classes)})

    @staticmethod
    def from_table(table: pd.DataFrame, classes: tuple[str, ...]) -> "Predictions":
        """Undo `table`.

        Raises:
            ValueError: the table is about other classes.
        """
        if sorted(classes) != sorted(classes_of(table)) or not table["class"].isin(classes).all():
            raise ValueError(f"the table is about {', '.join(classes_of(table))}, not about {', '.join(classes)}")
        labels = table["class"].map({name: i for i, name in enumerate(classes)}).to_numpy(int)
        probabilities = table[[f"p_{name}" for name in classes]].to_numpy(float)
        return Predictions(labels, probabilities, table.family.to_numpy(str), table.file.to_numpy(str))


def read_table(file: Path | StringIO) -> pd.DataFrame:
    """What `Predictions.table` wrote as CSV; names stay text, whatever they look like."""
    return pd.read_csv(file, dtype=dict.fromkeys(("file", "family", "class"), str), keep_default_na=False)


def classes_of(table: pd.DataFrame) -> tuple[str, ...]:
    """The classes that a table has probabilities of."""
    return tuple(name[2:] for name in table.columns.astype(str) if name.startswith("p_"))


def evaluate(predictions: Predictions, classes: Sequence[str]) -> Metrics:
    """Every figure of one set of predictions, of slices and (`patient_...`) of patients; NaN where it has no meaning.

    accuracy, balanced_accuracy, macro_f1, macro_auroc, macro_auprc, ece and brier; for each class, against the rest,
    recall (sensitivity), specificity, auroc and auprc. Beside each its 95 % interval over patients, `_ci_low` and
    `_ci_high` (see `sslbt.evaluation.intervals`).
    """
    metrics = _once(everything, predictions, classes)
    for name, draws in bootstrap(predictions, classes).items():
        point = metrics[name]
        low, high = interval(draws, point)
        if name.endswith("ece"):  # noise raises it: draws lie above the figure about as far as that above the truth
            low = max(0.0, low - 2 * max(0.0, float(draws.mean()) - point))
        metrics |= {f"{name}_ci_low": low, f"{name}_ci_high": high}
    return metrics


def headline(predictions: Predictions) -> Metrics:
    """Accuracy, balanced accuracy and macro F1 of slices and of patients; scores need not be probabilities."""
    return {name: value for name, value in _once(counted, predictions, ()).items() if name in HEADLINES}


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> float:
    """Gap between confidence and accuracy, over bins of equal width, weighed by size (Guo et al. 2017, eq. 3)."""
    gaps = calibration_gaps(labels, np.zeros_like(labels), probabilities, 1, bins)
    return float(np.abs(gaps).sum() / len(labels))


def brier_score(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Squared errors of the probabilities of all classes, added up, from 0 to 2 (Brier 1950)."""
    return float(brier_errors(labels, probabilities).mean())


def bootstrap(predictions: Predictions, classes: Sequence[str] = (), draws: int = DRAWS, seed: int = 0) -> Draws:
    """Every figure in `draws` samples of the patients; those of single classes where classes are named."""
    return _samples([predictions], classes, draws, seed)[0]


def paired_difference(
    ours: Predictions,
    theirs: Predictions,
    name: str,
    classes: Sequence[str] = (),
    draws: int = DRAWS,
    seed: int = 0,
) -> np.ndarray:
    """How much more `ours` has of a figure of `evaluate` in the same samples of the same patients, (draws,).

    Raises:
        ValueError: the two are not about the same slices.
    """
    return _paired(ours, theirs, classes, draws, seed)[name]


def paired_table(ours: Predictions, theirs: Predictions, classes: Sequence[str]) -> pd.DataFrame:
    """Both on the same patients: name, ours, theirs, difference, low and high of its 95 % interval, and p.

    Raises:
        ValueError: the two are not about the same slices.
    """
    own, other = _once(everything, ours, classes), _once(everything, theirs, classes)
    table = pd.DataFrame({"name": list(own), "ours": own.values(), "theirs": other.values()})
    table["difference"] = table.ours - table.theirs
    differences = _paired(ours, theirs, classes, DRAWS, seed=0)
    ends = [interval(differences[name], gap) for name, gap in zip(table.name, table.difference, strict=True)]
    table[["low", "high"]] = ends
    table["p"] = [p_value(differences[name]) for name in table.name]
    return table


def _paired(ours: Predictions, theirs: Predictions, classes: Sequence[str], draws: int, seed: int) -> Draws:
    if _truth(ours) != _truth(theirs):
        raise ValueError("a paired comparison needs predictions of the same slices")
    in_order = [model.only(np.lexsort((model.families, model.files))) for model in (ours, theirs)]
    own, other = _samples(in_order, classes, draws, seed)
    return {name: own[name] - other[name] for name in own}


def _truth(predictions: Predictions) -> list[tuple]:
    return sorted(zip(predictions.files, predictions.families, predictions.labels, strict=True))


def _samples(models: list[Predictions], classes: Sequence[str], draws: int, seed: int) -> list[Draws]:
    """Every figure of each model in the same samples of patients; the models have the same slices in one order."""
    names, rows = np.unique(models[0].families, return_inverse=True)
    answers = [own.probabilities for own in models]
    labels, rows, answers, weights = with_prior(models[0].labels, rows, *answers)
    samples = resample(weights, len(names), draws, seed)
    return [of_slices_and_patients(everything, labels, rows, own, samples, classes) for own in answers]


def _once(measure: Measure, predictions: Predictions, classes: Sequence[str]) -> Metrics:
    """Figures of the sample that holds everybody once."""
    names, rows = np.unique(predictions.families, return_inverse=True)
    whole = np.ones((1, len(names)))
    found = of_slices_and_patients(measure, predictions.labels, rows, predictions.probabilities, whole, classes)
    return {name: float(values[0]) for name, values in found.items()}
