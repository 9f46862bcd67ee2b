"""Names, corrected p values and the printed table of a comparison."""

import numpy as np
import pandas as pd
import pytest

from sslbt.errors import UserError
from sslbt.evaluation.metrics import Predictions
from sslbt.steps import compare as step


def test_names_that_come_again_are_numbered():
    assert step.distinct(["a", "b", "a", "a"]) == ["a", "b", "a (2)", "a (3)"]


def test_holm_by_hand():
    # Smallest of three times 3, next times 2, but none below one before it; the first run has no p.
    found = step.holm(pd.Series([np.nan, 0.04, 0.01, 0.03]))
    assert np.isnan(found[0])
    assert found[1:].tolist() == pytest.approx([0.06, 0.03, 0.06])
    assert step.holm(pd.Series([np.nan, 0.6, 0.7])).iloc[1:].tolist() == [1, 1]


class Evaluation:
    """As MLflow gives a run."""

    def __init__(self, run_id):
        self.info = type("Info", (), {"run_id": run_id, "run_name": f"evaluation {run_id}"})


def answers(right, first=0):
    labels = np.repeat(np.arange(30) % 3, 4)
    predicted = np.where(np.arange(120) % 10 < right, labels, (labels + 1) % 3)
    files = np.array([f"{first + i}.mat" for i in range(120)])
    return Predictions(
        labels, np.eye(3)[predicted] * 0.8 + 0.2 / 3, np.repeat([f"P{i:02}" for i in range(30)], 4), files
    )


def test_differences_are_to_the_first_and_a_clear_one_has_a_small_p():
    runs = [Evaluation(name) for name in "abc"]
    table = step.beside_the_first(["a", "b", "c"], runs, [answers(5), answers(9), answers(5)])
    rows = table[table.metric == "accuracy"].set_index("name")
    assert rows.value.tolist() == pytest.approx([0.5, 0.9, 0.5])
    assert rows.difference.tolist()[1:] == pytest.approx([0.4, 0])
    assert rows.p["b"] < 0.01
    assert rows.p["c"] == 1
    assert rows.difference_ci_low["b"] > 0
    said = step.told(table[table.metric == "accuracy"])
    assert "0.900 (" in said
    assert "+0.400 (" in said


def test_other_slices_can_not_be_paired():
    with pytest.raises(UserError, match=r"b \(evaluation b\) was judged on other slices than a \(evaluation a\)"):
        step.beside_the_first(["a", "b"], [Evaluation("a"), Evaluation("b")], [answers(5), answers(5, first=500)])


def test_classifiers_with_another_order_of_classes_are_compared_by_name():
    # One learnt from the data set (its own order), the other from folders (by the alphabet).
    runs, own = [Evaluation("a"), Evaluation("b")], answers(5)
    table = own.table(("pituitary", "glioma", "meningioma"))
    turned = table[["file", "family", "class", "predicted", "p_glioma", "p_meningioma", "p_pituitary"]]
    first, second = step.in_one_order(runs, [table, turned])
    assert first.labels.tolist() == second.labels.tolist() == own.labels.tolist()
    found = step.beside_the_first(["a", "b"], runs, [first, second])
    assert found.difference.dropna().tolist() == [0] * len(step.METRICS)


def test_classifiers_of_other_classes_are_not_compared():
    runs, own = [Evaluation("a"), Evaluation("b")], answers(5)
    tables = [own.table(("pituitary", "glioma", "meningioma")), own.table(("pituitary", "glioma", "other"))]
    with pytest.raises(UserError, match=r"b \(evaluation b\) knows other classes than a \(evaluation a\)"):
        step.in_one_order(runs, tables)
