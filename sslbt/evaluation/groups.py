"""Where a classifier fails: accuracy by what is known of a slice, and the worst answers."""

from itertools import pairwise

import numpy as np
import pandas as pd

from sslbt.evaluation.intervals import mean_interval
from sslbt.evaluation.metrics import Predictions

NAMES = 5  # that get a group each
EACH = 2  # of the worst answers that may be one patient's
Groups = tuple[list[str], np.ndarray]  # their names, and which of them each slice is in, -1 in none


def by_group(predictions: Predictions, table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by class, plane, tumour size, picture size, scanner gain and patient number, with 95 % intervals.

    No file names the hospital; how patients' numbers begin is the next best. Intervals are over patients.

    Args:
        predictions: of the test slices.
        table: the cache's rows of the same slices in the same order; unknown are plane "" and tumour NaN.

    Returns:
        by, group, slices, patients, accuracy, accuracy_ci_low, accuracy_ci_high. What does not tell slices apart (all
        of one picture size, say) is left out.
    """
    classes = table.groupby("label")["class"].first()
    size = table.height.astype(str) + " x " + table.width.astype(str)
    known = {
        "class": (list(classes), np.searchsorted(classes.index, table.label)),
        "plane": _named(table.plane),
        "tumour size": _thirds(100 * table.tumour, " % of the picture"),
        "picture size": _named(size),
        "scanner gain": _thirds(table.high, " at the brightest pixel"),
        "patient number": _named(_beginnings(table.patient)),
    }
    right = predictions.predicted == predictions.labels
    rows = []
    for by, (groups, number) in known.items():
        for place, group in enumerate(groups if len(groups) > 1 else []):
            own = number == place
            families = predictions.families[own]
            rows.append((by, group, own.sum(), len(np.unique(families)), *mean_interval(right[own], families)))
    names = ["accuracy", "accuracy_ci_low", "accuracy_ci_high"]
    return pd.DataFrame(rows, columns=["by", "group", "slices", "patients", *names])


def worst(predictions: Predictions, count: int) -> np.ndarray:
    """Rows of the surest wrong answers, surest first; at most `EACH` of a patient, so that none fills the sheet."""
    wrong = np.flatnonzero(predictions.predicted != predictions.labels)
    surest = wrong[np.argsort(-predictions.probabilities[wrong].max(axis=1), kind="stable")]
    place = pd.Series(predictions.families[surest]).groupby(predictions.families[surest]).cumcount()
    return surest[place.to_numpy() < EACH][:count]


def _named(values: pd.Series) -> Groups:
    """By name, the commonest first; empty names are no group, and all rare ones are one."""
    names = list(values[values != ""].value_counts().index)
    kept = names[:NAMES] + ["other"] * (len(names) > NAMES)
    number = {name: min(place, NAMES) for place, name in enumerate(names)}
    return kept, np.array([number.get(value, -1) for value in values])


def _beginnings(patients: pd.Series) -> pd.Series:
    """MR for MR024780B, a digit for 100360."""
    letters = patients.str.extract(r"^([^\W\d_]+)", expand=False)
    return letters.where(letters.notna(), "a digit").radd("begins with ").where(patients != "", "")


def _thirds(values: pd.Series, unit: str) -> Groups:
    """Three of about equal size, named by their limits; fewer where many values are the same."""
    known = values[values.notna()]
    limits = np.unique(np.quantile(known, [1 / 3, 2 / 3], method="lower")) if len(known) else np.zeros(0)
    limits = limits[limits < known.max()]  # what is at a limit is below it
    if not len(limits):
        return [], np.full(len(values), -1)
    text = [f"{limit:.2g}" if limit < 100 else f"{limit:.0f}" for limit in limits]
    names = [f"up to {text[0]}{unit}", *map(" to ".join, pairwise(text)), f"above {text[-1]}"]
    return names, np.where(values.notna(), np.searchsorted(limits, values), -1)
