import numpy as np
import pandas as pd
import pytest

from sslbt.evaluation.groups import by_group, worst
from sslbt.evaluation.intervals import mean_interval
from sslbt.evaluation.metrics import Predictions

TABLE = pd.DataFrame(
    {
        "label": [1, 1, 0, 0, 1, 0, 1, 0, 0],
        "class": [
            "glioma",
            "glioma",
            "meningioma",
            "meningioma",
            "glioma",
            "meningioma",
            "glioma",
            *["meningioma"] * 2,
        ],
        "patient": ["MR017260F"] * 4 + ["100360"] * 5,
        "plane": ["axial"] * 4 + ["sagittal"] * 2 + [""] * 3,
        "tumour": [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, np.nan, np.nan, np.nan],
        "height": [512] * 9,
        "width": [512] * 9,
        "high": [255.0] * 6 + [4095.0] * 3,
    }
)
RIGHT = np.array([1, 0, 1, 1, 0, 0, 1, 1, 1], bool)
FAMILIES = np.array(["a", "a", "b", "b", "c", "d", "c", "d", "d"])


def answers(right: np.ndarray, families: np.ndarray, labels: np.ndarray, sure: np.ndarray) -> Predictions:
    predicted = np.where(right, labels, 1 - labels)
    probabilities = np.where(np.arange(2) == predicted[:, None], sure[:, None], 1 - sure[:, None])
    return Predictions(labels, probabilities, families, np.arange(len(labels)).astype(str))


PREDICTIONS = answers(RIGHT, FAMILIES, TABLE.label.to_numpy(), np.full(9, 0.8))


def test_groups_by_hand() -> None:
    found = by_group(PREDICTIONS, TABLE).set_index(["by", "group"])
    assert list(found.index) == [
        ("class", "meningioma"),
        ("class", "glioma"),
        ("plane", "axial"),
        ("plane", "sagittal"),
        ("tumour size", "up to 2 % of the picture"),
        ("tumour size", "2 to 4"),
        ("tumour size", "above 4"),
        ("scanner gain", "up to 255 at the brightest pixel"),
        ("scanner gain", "above 255"),
        ("patient number", "begins with a digit"),
        ("patient number", "begins with MR"),
    ]  # all pictures have one size
    assert found.slices.tolist() == [5, 4, 4, 2, 2, 2, 2, 6, 3, 5, 4]
    assert found.patients.tolist() == [2, 2, 2, 2, 1, 1, 2, 4, 2, 2, 2]
    assert found.accuracy.to_numpy() == pytest.approx([4 / 5, 2 / 4, 3 / 4, 0, 1 / 2, 1, 0, 3 / 6, 1, 3 / 5, 3 / 4])
    axial = ("plane", "axial")
    expected = mean_interval(RIGHT[:4], FAMILIES[:4])
    assert tuple(found.loc[axial, ["accuracy", "accuracy_ci_low", "accuracy_ci_high"]]) == pytest.approx(expected)


def test_nothing_known_gives_classes_only() -> None:
    unknown = TABLE.assign(plane="", tumour=np.nan, high=255.0, patient="7")
    assert set(by_group(PREDICTIONS, unknown).by) == {"class"}


def test_rare_picture_sizes_are_one_group() -> None:
    sizes = TABLE.assign(width=[512, 512, 512, 256, 256, 300, 301, 302, 303], high=1.0, plane="")
    found = by_group(PREDICTIONS, sizes).query("by == 'picture size'")
    assert found.group.tolist()[:2] == ["512 x 512", "512 x 256"]
    assert found.group.iloc[-1] == "other"
    assert found.slices.tolist() == [3, 2, 1, 1, 1, 1]


def test_thirds_hold_a_third_each() -> None:
    generator = np.random.default_rng(0)
    count = 300
    table = pd.DataFrame(TABLE.loc[np.zeros(count, int)]).assign(tumour=generator.random(count), plane="")
    labels = table.label.to_numpy()
    predictions = answers(generator.random(count) < 0.7, np.arange(count).astype(str), labels, np.full(count, 0.9))
    assert by_group(predictions, table.reset_index(drop=True)).slices.tolist() == [100, 100, 100]


def test_the_worst_are_the_surest_wrong_answers_two_a_patient() -> None:
    sure = np.array([0.99, 0.6, 0.9, 0.8, 0.95, 0.7, 0.85])
    right = np.array([1, 0, 0, 0, 0, 0, 0], bool)
    families = np.array(["a", "a", "b", "b", "b", "c", "a"])
    predictions = answers(right, families, np.zeros(7, int), sure)
    assert worst(predictions, 10).tolist() == [4, 2, 6, 5, 1]  # 3 is b's third
    assert worst(predictions, 2).tolist() == [4, 2]
    assert worst(answers(np.ones(7, bool), families, np.zeros(7, int), sure), 5).tolist() == []
