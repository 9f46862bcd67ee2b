"""The gate: a challenger may not be clearly worse than the champion on the same patients."""

import numpy as np
import pytest

from sslbt.evaluation.metrics import Predictions
from sslbt.steps import register

CLASSES = ("meningioma", "glioma", "pituitary")


def table(accuracy, first=0, seed=0):
    """Predictions for 4 slices of each of 60 families, right with this probability."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(60) % 3, 4)
    predicted = np.where(generator.random(240) < accuracy, labels, (labels + 1) % 3)
    names = np.array([f"{first + i}.mat" for i in range(240)])
    families = np.repeat([f"P{i:03d}" for i in range(60)], 4)
    return Predictions(labels, np.eye(3)[predicted], families, names).table(CLASSES)


@pytest.mark.parametrize(
    ("ours", "theirs", "reason"),
    [
        (table(0.9), table(0.9), ""),
        (table(0.95), table(0.6), ""),
        (table(0.88, seed=1), table(0.9), ""),
        (table(0.5), table(0.95), "below the champion"),
        (table(0.95), table(0.6, first=1000), "judged on other slices"),
    ],
)
def test_objection(monkeypatch, ours, theirs, reason):
    monkeypatch.setattr(register.registry, "predictions_of", lambda run, path: {"ours": ours, "theirs": theirs}[run])
    found = register.objection("test/balanced_accuracy", "ours", "theirs", list(CLASSES))
    assert reason in found
    assert bool(found) == bool(reason)


def test_the_first_of_its_name_meets_no_objection():
    assert register.objection("test/accuracy", "ours", None, list(CLASSES)) == ""
