import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, roc_auc_score

from sslbt.evaluation import charts
from sslbt.evaluation.metrics import Predictions
from sslbt.evaluation.results import HEADLINE, Answering, Control, Metrics

CLASSES = ("meningioma", "glioma", "pituitary")


def drawn(figure: Figure) -> Figure:
    """It can be written."""
    figure.savefig(io.BytesIO(), dpi=20)
    return figure


def answers(count: int = 300, right: float = 1.5, seed: int = 0) -> Predictions:
    """Predictions that lean to the truth."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, count)
    scores = generator.normal(size=(count, 3)) + right * np.eye(3)[labels]
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return Predictions(labels, probabilities, np.array([f"P{row // 5}" for row in range(count)]), np.arange(count))


def figures_of(value: float, low: float, high: float) -> Metrics:
    return {HEADLINE: value, f"{HEADLINE}_ci_low": low, f"{HEADLINE}_ci_high": high}


def test_the_classifier_stands_above_its_controls_and_those_stand_in_order() -> None:
    controls = [
        Control("weak", "", figures_of(0.4, 0.3, 0.5), (0.1, 0.5)),
        Control("strong", "", figures_of(0.9, 0.8, 1.0), (-0.3, -0.1)),
    ]
    axis = drawn(charts.forest("ours", figures_of(0.7, 0.6, 0.8), controls, 1 / 3)).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["ours", "strong", "weak"]
    assert axis.get_ylim() == (2.5, -0.5)  # the first on top
    intervals, values = axis.lines[:6:2], axis.lines[1:6:2]
    assert [list(line.get_xdata()) for line in intervals] == [[0.6, 0.8], [0.8, 1.0], [0.3, 0.5]]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in values] == [(0.7, 0), (0.9, 1), (0.4, 2)]
    assert axis.lines[6].get_xdata()[0] == 1 / 3


def test_a_classifier_without_controls_has_a_chart() -> None:
    assert len(drawn(charts.forest("ours", figures_of(0.7, 0.6, 0.8), [], 0.5)).axes[0].get_yticklabels()) == 1


def test_differences_are_those_to_the_first_in_the_order_given() -> None:
    rows = [("a", np.nan, np.nan, np.nan), ("b", 0.1, -0.1, 0.3), ("c", -0.2, -0.3, -0.1)]
    table = pd.DataFrame(rows, columns=["name", "difference", "difference_ci_low", "difference_ci_high"])
    axis = drawn(charts.differences(table, "patient_accuracy")).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["b", "c"]
    assert [list(line.get_xdata()) for line in axis.lines[:4:2]] == [[-0.1, 0.3], [-0.3, -0.1]]
    assert [line.get_xdata()[0] for line in axis.lines[1:4:2]] == [0.1, -0.2]
    assert axis.get_xlabel() == "patient accuracy, more than a"


def test_confusion_counts_as_scikit_learn_does() -> None:
    given = answers()
    axis = drawn(charts.confusion(given, CLASSES, "slices")).axes[0]
    expected = confusion_matrix(given.labels, given.predicted)
    texts = [text.get_text() for text in axis.texts]
    assert texts[::2] == [str(count) for count in expected.ravel()]
    shares = expected / expected.sum(axis=1, keepdims=True)
    assert texts[1::2] == [f"{share:.0%}" for share in shares.ravel()]
    assert (axis.get_ylabel(), axis.get_xlabel(), axis.get_title()) == ("true", "predicted", "slices")


def test_confusion_of_a_class_that_is_not_there() -> None:
    given = answers(1)
    assert len(drawn(charts.confusion(given, CLASSES, "slices")).axes[0].texts) == 18


def test_bins_of_confidence_are_those_of_scikit_learn() -> None:
    given = answers(500)
    stated, right, counts = charts.by_confidence(given)
    expected = calibration_curve(given.predicted == given.labels, given.probabilities.max(axis=1), n_bins=10)
    np.testing.assert_allclose(right, expected[0])
    np.testing.assert_allclose(stated, expected[1])
    assert counts.sum() == 500


def test_certainty_is_in_the_last_bin() -> None:
    given = Predictions(np.array([0, 1]), np.array([[1.0, 0], [1, 0]]), np.array(["a", "b"]), np.array(["a", "b"]))
    stated, right, counts = charts.by_confidence(given)
    assert (stated.tolist(), right.tolist(), counts.tolist()) == ([1.0], [0.5], [2])


def test_reliability_shows_both_before_and_after() -> None:
    given = answers()
    above, below = drawn(charts.reliability(given, answers(seed=1).probabilities)).axes
    assert [text.get_text() for text in above.get_legend().get_texts()] == ["before", "after calibration"]
    stated, right, _ = charts.by_confidence(given)
    np.testing.assert_allclose(np.asarray(above.collections[1].get_offsets()), np.column_stack([stated, right]))
    assert sum(bar.get_height() for bar in below.patches) == len(given.labels)


@pytest.mark.parametrize(("answered", "marks"), [(0.4, 1), (0.0, 0)])
def test_the_curve_and_the_place_of_the_threshold(answered: float, marks: int) -> None:
    curve = pd.DataFrame({"coverage": [0.5, 1.0], "accuracy": [0.9, 0.8]})
    curve = curve.assign(accuracy_ci_low=curve.accuracy - 0.1, accuracy_ci_high=curve.accuracy + 0.1)
    axis = drawn(charts.risk_coverage(Answering(0.9, 0.2, 20, (0.9, 0.8, 1), answered, 0.95, curve))).axes[0]
    assert axis.lines[0].get_xydata().tolist() == [[0.5, 0.9], [1.0, 0.8]]
    assert [line.get_xydata().tolist() for line in axis.lines[1:]] == [[[answered, 0.95]]] * marks
    band = axis.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (pytest.approx(0.7), 1.0)


def test_each_change_has_a_chart_on_the_same_scale() -> None:
    rows = [("noise", 0, 0.8), ("noise", 0.1, 0.6), ("gamma", -1, 0.5), ("gamma", 0, 0.8), ("gamma", 1, 0.7)]
    table = pd.DataFrame(rows, columns=["change", "strength", "balanced_accuracy"])
    table["balanced_accuracy_ci_low"], table["balanced_accuracy_ci_high"] = (
        table.balanced_accuracy - 0.1,
        table.balanced_accuracy + 0.1,
    )
    found = charts.robustness(table)
    assert list(found) == ["noise", "gamma"]
    noise, gamma = (drawn(figure).axes[0] for figure in found.values())
    assert noise.lines[0].get_ydata().tolist() == [0.8, 0.6]
    assert [label.get_text() for label in gamma.get_xticklabels()] == ["-1", "0", "1"]
    assert gamma.lines[1].get_ydata()[0] == 0.8  # as the slices are
    assert noise.get_ylim() == gamma.get_ylim() == (pytest.approx(0.35), 1)


def test_the_area_under_the_curves_is_that_of_scikit_learn() -> None:
    given = answers()
    axis = drawn(charts.roc(given, CLASSES, "slices")).axes[0]
    for index, line in enumerate(axis.lines[1:]):
        expected = roc_auc_score(given.labels == index, given.probabilities[:, index])
        assert np.trapezoid(line.get_ydata(), line.get_xdata()) == pytest.approx(expected)


def test_one_class_alone_has_no_curve() -> None:
    given = answers()
    alone = Predictions(np.zeros_like(given.labels), given.probabilities, given.families, given.files)
    axis = drawn(charts.roc(alone, CLASSES, "slices")).axes[0]
    assert len(axis.lines) == 1
    assert axis.get_legend() is None
