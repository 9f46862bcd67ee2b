import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn import metrics as peer

from sslbt.evaluation.metrics import (
    Predictions,
    bootstrap,
    evaluate,
    expected_calibration_error,
    headline,
    macro_auroc,
    paired_difference,
)

CLASSES = ("meningioma", "glioma", "pituitary")
HEADLINE = {"accuracy", "balanced_accuracy", "macro_f1", "patient_accuracy", "patient_balanced_accuracy"}


def draw(patients: int = 30, seed: int = 0, skill: float = 1.5) -> Predictions:
    """Patients of one to six slices, mostly right, in random order."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 7, patients)
    family = np.repeat(np.arange(patients), sizes)
    label = generator.choice(3, patients, p=[0.2, 0.5, 0.3])[family]
    logits = generator.normal(0, 1, (len(family), 3)) + generator.normal(0, 1, (patients, 3))[family]
    logits[np.arange(len(family)), label] += skill
    order = generator.permutation(len(family))
    names = np.array([f"P{number:03}" for number in family])
    files = np.array([f"{number}.mat" for number in range(len(family))])
    return Predictions(label[order], softmax(logits, axis=1)[order], names[order], files[order])


def take(predictions: Predictions, rows: np.ndarray | list[int]) -> Predictions:
    fields = (predictions.labels, predictions.probabilities, predictions.families, predictions.files)
    return Predictions(*(field[rows] for field in fields))


def patients_by_loop(predictions: Predictions) -> dict[str, tuple[int, np.ndarray]]:
    found = {}
    for name in set(predictions.families.tolist()):
        own = [i for i, family in enumerate(predictions.families) if family == name]
        labels = [int(predictions.labels[i]) for i in own]
        found[name] = (max(set(labels), key=labels.count), sum(predictions.probabilities[i] for i in own) / len(own))
    return found


def by_peer(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    return {
        "accuracy": peer.accuracy_score(labels, predicted),
        "balanced_accuracy": peer.balanced_accuracy_score(labels, predicted),
        "macro_f1": peer.f1_score(labels, predicted, average="macro", labels=np.unique(labels), zero_division=0),
    }


def test_slices_are_judged_as_scikit_learn_judges_them() -> None:
    predictions = draw()
    labels, predicted, probabilities = predictions.labels, predictions.predicted, predictions.probabilities
    found = evaluate(predictions, CLASSES)
    wanted = by_peer(labels, predicted)
    wanted["macro_auroc"] = peer.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    wanted["brier"] = peer.brier_score_loss(labels, probabilities, labels=[0, 1, 2], scale_by_half=False)
    recalls = peer.recall_score(labels, predicted, average=None)
    wanted |= {f"recall_{name}": recall for name, recall in zip(CLASSES, recalls, strict=True)}
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)
    assert 0.3 < found["accuracy"] < 0.95  # neither all right nor all wrong


def test_patients_are_judged_by_the_mean_of_their_slices() -> None:
    predictions = draw()
    patients = patients_by_loop(predictions)
    labels = np.array([label for label, _ in patients.values()])
    probabilities = np.array([mean for _, mean in patients.values()])
    wanted = {
        "patient_accuracy": peer.accuracy_score(labels, probabilities.argmax(axis=1)),
        "patient_balanced_accuracy": peer.balanced_accuracy_score(labels, probabilities.argmax(axis=1)),
        "patient_macro_auroc": peer.roc_auc_score(labels, probabilities, multi_class="ovr"),
    }
    found = evaluate(predictions, CLASSES)
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)
    ours = predictions.by_patient()
    assert set(ours.families) == set(patients)
    for label, mean, name in zip(ours.labels, ours.probabilities, ours.families, strict=True):
        assert label == patients[name][0]
        assert mean == pytest.approx(patients[name][1])


def test_the_order_of_slices_does_not_matter() -> None:
    predictions = draw()
    mixed = take(predictions, np.random.default_rng(1).permutation(len(predictions.labels)))
    assert evaluate(mixed, CLASSES) == pytest.approx(evaluate(predictions, CLASSES))


def test_calibration_error_by_hand() -> None:
    # Five bins of 0.2: two slices at 0.9 (one right), one at 0.7 (right), one at 0.5 (wrong).
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [0.7, 0.3], [0.5, 0.5]])
    labels = np.array([0, 0, 0, 1])
    by_hand = 2 / 4 * abs(0.9 - 0.5) + 1 / 4 * abs(0.7 - 1) + 1 / 4 * abs(0.5 - 0)
    assert expected_calibration_error(labels, probabilities, bins=5) == pytest.approx(by_hand)
    assert expected_calibration_error(labels, probabilities, bins=1) == pytest.approx(abs(3.0 / 4 - 2 / 4))


def test_certainty_falls_into_the_last_bin() -> None:
    sure = np.eye(3)[[0, 1, 2, 0]]
    assert expected_calibration_error(np.array([0, 1, 2, 0]), sure) == 0
    assert expected_calibration_error(np.array([1, 2, 0, 0]), sure) == 0.75


def test_calibrated_answers_have_little_calibration_error_and_overconfident_ones_much() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (20_000, 3))
    labels = np.array([generator.choice(3, p=row) for row in softmax(logits, axis=1)])
    assert expected_calibration_error(labels, softmax(logits, axis=1)) < 0.015
    assert expected_calibration_error(labels, softmax(3 * logits, axis=1)) > 0.1


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_the_bootstrap_equals_measuring_every_sample_anew() -> None:
    predictions = draw(patients=12)
    found = bootstrap(predictions, draws=40, seed=3)
    assert set(found) == HEADLINE
    weights = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), size=40)
    patients = patients_by_loop(predictions)
    for number, times in enumerate(weights):
        sampled = [name for name, count in zip(sorted(patients), times, strict=True) for _ in range(count)]
        assert len(sampled) == 12
        rows = [i for name in sampled for i in np.flatnonzero(predictions.families == name)]
        labels, predicted = predictions.labels[rows], predictions.predicted[rows]
        own = np.array([patients[name][0] for name in sampled])
        taken = np.array([patients[name][1].argmax() for name in sampled])
        wanted = by_peer(labels, predicted) | {f"patient_{name}": value for name, value in by_peer(own, taken).items()}
        del wanted["patient_macro_f1"]
        assert {name: float(draws[number]) for name, draws in found.items()} == pytest.approx(wanted)


def test_the_headline_is_the_sample_that_holds_everybody_once() -> None:
    predictions = draw()
    whole = headline(predictions)
    assert set(whole) == HEADLINE
    scores = evaluate(predictions, CLASSES)
    for name, value in whole.items():
        assert scores[name] == value
        assert scores[f"{name}_ci_low"] < value < scores[f"{name}_ci_high"]


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    # Each patient's slices are right at a rate of their own, 0.8 on average; a sample has 40 patients.
    generator = np.random.default_rng(0)
    inside, widths, naive = 0, [], []
    for _ in range(300):
        family = np.repeat(np.arange(40), generator.integers(1, 9, 40))
        right = generator.random(len(family)) < generator.beta(2, 0.5, 40)[family]
        labels = family % 3
        probabilities = np.eye(3)[(labels + ~right) % 3]
        predictions = Predictions(labels, probabilities, family, np.arange(len(family)))
        low, high = np.percentile(bootstrap(predictions, draws=300)["accuracy"], [2.5, 97.5])
        inside += low <= 0.8 <= high
        widths.append(high - low)
        naive.append(2 * 1.96 * math.sqrt(0.8 * 0.2 / len(family)))
    assert 0.88 <= inside / 300 <= 0.99
    assert np.mean(widths) > 1.3 * np.mean(naive)  # slices of one patient are no independent witnesses


def test_a_paired_difference_of_the_same_answers_is_nothing() -> None:
    predictions = draw()
    mixed = take(predictions, np.random.default_rng(1).permutation(len(predictions.labels)))
    for name in HEADLINE:
        assert not paired_difference(predictions, mixed, name, draws=50).any()


def test_a_paired_difference_has_the_sign_of_who_is_better_and_knows_how_sure() -> None:
    ours = draw(60)
    worse = ours.probabilities.copy()
    wrong = np.flatnonzero(ours.predicted == ours.labels)[::2]
    worse[wrong] = np.roll(worse[wrong], 1, axis=1)
    theirs = Predictions(ours.labels, worse, ours.families, ours.files)
    for name in HEADLINE:
        assert np.percentile(paired_difference(ours, theirs, name), 2.5) > 0
        assert np.percentile(paired_difference(theirs, ours, name), 97.5) < 0
    gap = headline(ours)["accuracy"] - headline(theirs)["accuracy"]
    assert paired_difference(ours, theirs, "accuracy").mean() == pytest.approx(gap, abs=0.01)


def test_pairing_is_sharper_than_comparing_intervals() -> None:
    ours = draw(60)
    theirs = Predictions(ours.labels, ours.probabilities.copy(), ours.families, ours.files)
    theirs.probabilities[:10] = np.roll(theirs.probabilities[:10], 1, axis=1)
    paired = paired_difference(ours, theirs, "accuracy").std()
    assert paired < 0.6 * bootstrap(ours)["accuracy"].std()


@pytest.mark.parametrize("change", ["files", "families", "labels", "fewer"])
def test_a_paired_difference_refuses_other_slices(change: str) -> None:
    ours = draw()
    theirs = take(ours, slice(1, None) if change == "fewer" else slice(None))  # type: ignore[arg-type]
    if change == "labels":
        theirs.labels[0] = (theirs.labels[0] + 1) % 3
    elif change != "fewer":
        theirs = Predictions(theirs.labels, theirs.probabilities, theirs.families.copy(), theirs.files.copy())
        getattr(theirs, change)[0] = "other"
    ours = draw()
    with pytest.raises(ValueError, match="same slices"):
        paired_difference(ours, theirs, "accuracy")


def test_a_table_read_back_is_the_same(tmp_path: Path) -> None:
    predictions = draw()
    table = predictions.table(CLASSES)
    assert list(table) == ["file", "family", "class", "predicted", "p_meningioma", "p_glioma", "p_pituitary"]
    table.to_csv(tmp_path / "predictions.csv", index=False)
    back = Predictions.from_table(pd.read_csv(tmp_path / "predictions.csv"), CLASSES)
    assert np.array_equal(back.probabilities, predictions.probabilities)
    for name in ("labels", "families", "files"):
        assert np.array_equal(getattr(back, name), getattr(predictions, name))
    assert (table["predicted"] == np.array(CLASSES)[predictions.predicted]).all()


@pytest.mark.filterwarnings("error")
class TestSmallSets:
    """What is measured where there is little to measure: all that has a meaning, NaN elsewhere, no warning."""

    def test_a_class_that_is_missing_is_left_out(self) -> None:
        predictions = draw()
        two = take(predictions, np.flatnonzero(predictions.labels != 0))
        found = evaluate(two, CLASSES)
        assert "recall_meningioma" not in found
        assert found["balanced_accuracy"] == pytest.approx((found["recall_glioma"] + found["recall_pituitary"]) / 2)
        areas = [peer.roc_auc_score(two.labels == label, two.probabilities[:, label]) for label in (1, 2)]
        assert found["macro_auroc"] == pytest.approx(np.mean(areas))
        assert all(math.isfinite(value) for value in found.values())

    def test_one_class_alone_has_no_roc_curve(self) -> None:
        predictions = draw()
        found = evaluate(take(predictions, np.flatnonzero(predictions.labels == 1)), CLASSES)
        assert {name for name, value in found.items() if math.isnan(value)} == {"macro_auroc", "patient_macro_auroc"}
        assert found["accuracy"] == found["balanced_accuracy"] == found["recall_glioma"]

    def test_one_patient_has_an_interval_without_width(self) -> None:
        predictions = draw()
        found = evaluate(take(predictions, np.flatnonzero(predictions.families == "P003")), CLASSES)
        assert found["accuracy_ci_low"] == found["accuracy"] == found["accuracy_ci_high"]

    @pytest.mark.parametrize("right", [True, False])
    def test_one_slice(self, right: bool) -> None:
        one = Predictions(np.array([1]), np.eye(3)[[1 if right else 2]], np.array(["P"]), np.array(["1.mat"]))
        found = evaluate(one, CLASSES)
        for name in HEADLINE:
            assert found[name] == found[f"{name}_ci_low"] == found[f"{name}_ci_high"] == float(right)
        assert found["brier"] == (0 if right else 2)
        assert math.isnan(found["macro_auroc"])

    def test_all_right(self) -> None:
        predictions = draw()
        perfect = Predictions(
            predictions.labels, np.eye(3)[predictions.labels], predictions.families, predictions.files
        )
        found = evaluate(perfect, CLASSES)
        assert all(found[name] == found[f"{name}_ci_low"] == 1 for name in HEADLINE)
        assert (found["macro_auroc"], found["ece"], found["brier"]) == (1, 0, 0)


def test_auroc_counts_pairs_in_the_right_order() -> None:
    # Class 0 against the rest: of 2 x 2 pairs 3 are in order; class 1 mirrors it.
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.5, 0.5], [0.1, 0.9]])
    assert macro_auroc(np.array([0, 0, 1, 1]), probabilities) == 0.75
