import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn import metrics as peer

from sslbt.evaluation.intervals import interval, p_value, resample, with_prior
from sslbt.evaluation.metrics import (
    HEADLINES,
    Predictions,
    bootstrap,
    classes_of,
    evaluate,
    expected_calibration_error,
    headline,
    paired_difference,
    paired_table,
    read_table,
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


def by_peer(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Every figure as scikit-learn counts it; calibration error aside, which it lacks."""
    predicted, held = probabilities.argmax(axis=1), np.unique(labels)
    rest = peer.multilabel_confusion_matrix(labels, predicted, labels=[0, 1, 2])
    found = {
        "accuracy": peer.accuracy_score(labels, predicted),
        "balanced_accuracy": peer.balanced_accuracy_score(labels, predicted),
        "macro_f1": peer.f1_score(labels, predicted, average="macro", labels=held, zero_division=0),
        "brier": peer.brier_score_loss(labels, probabilities, labels=[0, 1, 2], scale_by_half=False),
        "macro_auroc": peer.roc_auc_score(np.eye(3)[labels][:, held], probabilities[:, held]),
        "macro_auprc": peer.average_precision_score(np.eye(3)[labels][:, held], probabilities[:, held]),
    }
    for label in held:
        name, own, scores = CLASSES[label], labels == label, probabilities[:, label]
        found[f"recall_{name}"] = peer.recall_score(own, predicted == label)
        found[f"specificity_{name}"] = rest[label, 0, 0] / rest[label, 0].sum()
        found[f"auroc_{name}"] = peer.roc_auc_score(own, scores)
        found[f"auprc_{name}"] = peer.average_precision_score(own, scores)
    return found


def calibration_error_by_loop(labels: np.ndarray, probabilities: np.ndarray) -> float:
    bins: dict[int, list[float]] = {}
    for label, row in zip(labels, probabilities, strict=True):
        bins.setdefault(min(int(max(row) * 15), 14), []).append(float(row.argmax() == label) - max(row))
    return sum(abs(sum(gaps)) for gaps in bins.values()) / len(labels)


@pytest.mark.parametrize("digits", [1, 15])
def test_slices_are_judged_as_scikit_learn_judges_them(digits: int) -> None:
    predictions = draw()
    rounded = np.round(predictions.probabilities + 1e-3, digits)  # to one digit: with many ties
    rounded = rounded / rounded.sum(axis=1, keepdims=True)
    predictions = Predictions(predictions.labels, rounded, predictions.families, predictions.files)
    found = evaluate(predictions, CLASSES)
    wanted = by_peer(predictions.labels, rounded)
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)
    assert found["ece"] == pytest.approx(calibration_error_by_loop(predictions.labels, rounded))
    assert 0.3 < found["accuracy"] < 0.95  # neither all right nor all wrong


def test_patients_are_judged_by_the_mean_of_their_slices() -> None:
    predictions = draw()
    patients = patients_by_loop(predictions)
    labels = np.array([label for label, _ in patients.values()])
    probabilities = np.array([mean for _, mean in patients.values()])
    wanted = {f"patient_{name}": value for name, value in by_peer(labels, probabilities).items()}
    found = evaluate(predictions, CLASSES)
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)
    slices = {name for name in found if not name.startswith("patient_")}
    assert {f"patient_{name}" for name in slices} == set(found) - slices
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


def test_specificity_by_hand() -> None:
    # Of three slices that are no glioma one was taken for it, of two that are no meningioma one.
    labels, predicted = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0])
    found = evaluate(Predictions(labels, np.eye(3)[predicted], np.array(list("abcd")), np.arange(4)), CLASSES)
    assert found["specificity_glioma"] == pytest.approx(2 / 3)
    assert found["specificity_meningioma"] == pytest.approx(1 / 2)
    assert (found["specificity_pituitary"], found["recall_pituitary"]) == (1, 0)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_the_bootstrap_equals_measuring_every_sample_anew() -> None:
    predictions = draw(patients=12)
    names, rows = np.unique(predictions.families, return_inverse=True)
    labels, rows, (probabilities,), weights = with_prior(predictions.labels, rows, predictions.probabilities)
    found = bootstrap(predictions, CLASSES, draws=40, seed=3)
    patients = patients_by_loop(Predictions(labels, probabilities, rows, rows))
    for number, times in enumerate(resample(weights, len(names), draws=40, seed=3).astype(int)):
        assert times.sum() == 12
        sampled = np.repeat(np.arange(len(times)), times)
        which = np.concatenate([np.flatnonzero(rows == family) for family in sampled])
        own, means = (np.array(part) for part in zip(*(patients[family] for family in sampled), strict=True))
        wanted = by_peer(labels[which], probabilities[which])
        wanted["ece"] = calibration_error_by_loop(labels[which], probabilities[which])
        wanted |= {f"patient_{name}": value for name, value in by_peer(own, means).items()}
        assert {name: float(found[name][number]) for name in wanted} == pytest.approx(wanted)


def test_the_headline_is_the_sample_that_holds_everybody_once() -> None:
    predictions = draw()
    whole = headline(predictions)
    assert set(whole) == HEADLINE
    assert set(HEADLINES) > HEADLINE
    scores = evaluate(predictions, CLASSES)
    assert whole == {name: scores[name] for name in HEADLINE}
    for name in HEADLINES:
        assert scores[f"{name}_ci_low"] < scores[name] < scores[f"{name}_ci_high"]


def test_headline_takes_scores_that_are_no_probabilities() -> None:
    predictions = draw()
    scores = Predictions(
        predictions.labels, 9 * np.log(predictions.probabilities), predictions.families, predictions.files
    )
    assert headline(scores)["accuracy"] == headline(predictions)["accuracy"]


def simulated(generator: np.random.Generator, patients: np.ndarray, skill: float, models: int = 1) -> list[Predictions]:
    """Classifiers whose scores for the slices of a patient, and for the same slice, are alike."""
    family = np.repeat(np.arange(len(patients)), generator.integers(2, 9, len(patients)))
    labels = patients[family]

    def noise() -> np.ndarray:
        return generator.normal(0, 1, (len(family), 3)) + generator.normal(0, 1.5, (len(patients), 3))[family]

    common = noise()
    scores = [0.8 * common + 0.6 * noise() + skill * np.eye(3)[labels] for _ in range(models)]
    return [Predictions(labels, softmax(own, axis=1), family, np.arange(len(family))) for own in scores]


@pytest.mark.parametrize("skill", [2.0, 4.5])
def test_the_intervals_hold_the_truth_as_often_as_they_say(skill: float) -> None:
    patients = np.repeat([0, 1, 2], [12, 12, 10])
    names = (
        "accuracy",
        "balanced_accuracy",
        "macro_auroc",
        "brier",
        "ece",
        "patient_accuracy",
        "patient_balanced_accuracy",
    )
    (many,) = simulated(np.random.default_rng(1), np.tile(patients, 400), skill)
    slices, people = (by_peer(own.labels, own.probabilities) for own in (many, many.by_patient()))
    truth = slices | {f"patient_{name}": value for name, value in people.items()}
    truth["ece"] = calibration_error_by_loop(many.labels, many.probabilities)
    inside = dict.fromkeys(names, 0)
    for number in range(100):
        found = evaluate(*simulated(np.random.default_rng([2, number]), patients, skill), CLASSES)
        for name in names:
            inside[name] += found[f"{name}_ci_low"] <= truth[name] <= found[f"{name}_ci_high"]
    assert min(inside.values()) >= 89  # of intervals that hold it in 95 of 100, one in a hundred falls below 90


def test_equal_classifiers_are_seldom_told_apart() -> None:
    names = ("accuracy", "macro_auroc", "brier", "ece", "patient_balanced_accuracy")
    patients = np.repeat([0, 1, 2], [12, 12, 10])
    apart = dict.fromkeys(names, 0)
    for number in range(50):
        ours, theirs = simulated(np.random.default_rng([3, number]), patients, 3.0, models=2)
        table = paired_table(ours, theirs, CLASSES).set_index("name")
        for name in names:
            apart[name] += table.p[name] < 0.05
    assert max(apart.values()) <= 6  # 2 or 3 of 50 expected, more than 6 once in a hundred


def test_intervals_are_of_patients_not_of_slices() -> None:
    once = draw(60)
    copies = np.tile(np.arange(len(once.labels)), 20)
    often = take(once, copies)
    for name in ("accuracy", "brier", "patient_accuracy"):
        widths = [
            found[f"{name}_ci_high"] - found[f"{name}_ci_low"] for found in (evaluate(once, ()), evaluate(often, ()))
        ]
        assert widths[1] == pytest.approx(widths[0], rel=0.05)


def test_the_same_answers_are_no_difference() -> None:
    predictions = draw()
    mixed = take(predictions, np.random.default_rng(1).permutation(len(predictions.labels)))
    table = paired_table(predictions, mixed, CLASSES)
    assert not table.difference.any()
    assert ((table.low <= 0) & (table.high >= 0)).all()
    assert (table.p == 1).all()


def test_the_order_of_slices_does_not_matter_to_a_pair() -> None:
    ours, theirs = simulated(np.random.default_rng(0), np.arange(20) % 3, 2.0, models=2)
    mixed = take(theirs, np.random.default_rng(1).permutation(len(theirs.labels)))
    pd.testing.assert_frame_equal(paired_table(ours, theirs, CLASSES), paired_table(ours, mixed, CLASSES))


def test_a_paired_table_holds_every_figure_and_turns_around() -> None:
    ours, theirs = simulated(np.random.default_rng(0), np.arange(30) % 3, 2.0, models=2)
    table, turned = (paired_table(*pair, CLASSES).set_index("name") for pair in ((ours, theirs), (theirs, ours)))
    figures = [evaluate(own, CLASSES) for own in (ours, theirs)]
    assert set(table.index) == {name for name in figures[0] if "_ci_" not in name}
    for name, row in table.iterrows():
        assert (row.ours, row.theirs) == (figures[0][name], figures[1][name])
        assert row.difference == row.ours - row.theirs
        assert row.low <= row.difference <= row.high
        assert turned.low[name] == pytest.approx(-row.high, abs=0.03)
        differences = paired_difference(ours, theirs, str(name), CLASSES)
        assert row.p == p_value(differences)
        assert (row.low, row.high) == interval(differences, row.difference)


def test_a_paired_difference_has_the_sign_of_who_is_better_and_knows_how_sure() -> None:
    ours = draw(60)
    worse = ours.probabilities.copy()
    wrong = np.flatnonzero(ours.predicted == ours.labels)[::2]
    worse[wrong] = np.roll(worse[wrong], 1, axis=1)
    theirs = Predictions(ours.labels, worse, ours.families, ours.files)
    for name in HEADLINE:
        assert np.percentile(paired_difference(ours, theirs, name), 2.5) > 0
        assert np.percentile(paired_difference(theirs, ours, name), 97.5) < 0
    table = paired_table(ours, theirs, CLASSES).set_index("name")
    assert table.p["accuracy"] < 0.01
    assert table.high["brier"] < 0  # less is better
    gap = headline(ours)["accuracy"] - headline(theirs)["accuracy"]
    assert paired_difference(ours, theirs, "accuracy").mean() == pytest.approx(
        gap * 60 / 63, abs=0.01
    )  # 3 of the prior


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
    back = pd.read_csv(tmp_path / "predictions.csv")
    for found in (Predictions.from_table(back, CLASSES), Predictions.from_table(back, classes_of(back))):
        for name in ("labels", "probabilities", "families", "files"):
            assert np.array_equal(getattr(found, name), getattr(predictions, name))
    assert (table["predicted"] == np.array(CLASSES)[predictions.predicted]).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("names", [("1", "2"), ("NA", "null"), ("007", "7")])
def test_names_of_classes_stay_text_whatever_they_look_like(names: tuple[str, str], tmp_path: Path) -> None:
    labels = np.array([0, 1, 1])
    ours = Predictions(labels, np.eye(2)[labels], np.array(["NA", "01", "1"]), np.array(["1", "2", "None"]))
    ours.table(names).to_csv(tmp_path / "predictions.csv", index=False)
    table = read_table(tmp_path / "predictions.csv")
    found = Predictions.from_table(table, classes_of(table))
    for column in ("labels", "probabilities", "families", "files"):
        np.testing.assert_array_equal(getattr(found, column), getattr(ours, column))


def test_a_table_of_other_classes_is_refused() -> None:
    labels = np.array([0, 1])
    table = Predictions(labels, np.eye(2), np.array(["P1", "P2"]), np.array(["1", "2"])).table(("apple", "berry"))
    for classes in (("apple", "cherry"), ("apple",), ("apple", "berry", "cherry")):
        with pytest.raises(ValueError, match="the table is about apple, berry, not about apple"):
            Predictions.from_table(table, classes)
    with pytest.raises(ValueError, match="is about"):
        Predictions.from_table(table.assign(**{"class": ["apple", "cherry"]}), ("apple", "berry"))


class TestSmallSets:
    """What is measured where there is little to measure: all that has a meaning, NaN elsewhere, no warning."""

    def test_a_class_that_is_missing_is_left_out(self) -> None:
        predictions = draw()
        two = take(predictions, np.flatnonzero(predictions.labels != 0))
        found = evaluate(two, CLASSES)
        assert found["balanced_accuracy"] == pytest.approx((found["recall_glioma"] + found["recall_pituitary"]) / 2)
        areas = [peer.roc_auc_score(two.labels == label, two.probabilities[:, label]) for label in (1, 2)]
        assert found["macro_auroc"] == pytest.approx(np.mean(areas))
        assert found["specificity_meningioma"] == np.mean(two.predicted != 0)
        unknown = {name for name, value in found.items() if math.isnan(value)}
        assert unknown == {
            f"{whose}{name}_meningioma{end}"
            for whose in ("", "patient_")
            for name in ("recall", "auroc", "auprc")
            for end in ("", "_ci_low", "_ci_high")
        }

    def test_one_class_alone_has_no_curve(self) -> None:
        predictions = draw()
        found = evaluate(take(predictions, np.flatnonzero(predictions.labels == 1)), CLASSES)
        unknown = {name for name, value in found.items() if math.isnan(value)}
        assert {name for name in unknown if name.startswith("macro")} == {
            f"{name}{end}" for name in ("macro_auroc", "macro_auprc") for end in ("", "_ci_low", "_ci_high")
        }
        assert found["accuracy"] == found["balanced_accuracy"] == found["recall_glioma"]
        assert "specificity_glioma" in unknown

    def test_one_patient_says_next_to_nothing(self) -> None:
        predictions = draw()
        found = evaluate(take(predictions, np.flatnonzero(predictions.families == "P003")), CLASSES)
        assert (found["patient_accuracy_ci_low"], found["patient_accuracy_ci_high"]) == (0, 1)
        assert found["accuracy_ci_low"] <= found["accuracy"] <= found["accuracy_ci_high"]

    @pytest.mark.parametrize("right", [True, False])
    def test_one_slice(self, right: bool) -> None:
        one = Predictions(np.array([1]), np.eye(3)[[1 if right else 2]], np.array(["P"]), np.array(["1.mat"]))
        found = evaluate(one, CLASSES)
        for name in HEADLINE:
            assert found[name] == float(right)
            assert (found[f"{name}_ci_low"], found[f"{name}_ci_high"]) == (0, 1)
        assert found["brier"] == (0 if right else 2)
        assert math.isnan(found["macro_auroc"])
        assert not paired_table(one, one, CLASSES).difference.any()

    @pytest.mark.parametrize("shift", [0, 1])
    def test_all_right_or_all_wrong_is_not_certain_to_stay_so(self, shift: int) -> None:
        ours = draw(patients=34)
        extreme = Predictions(ours.labels, np.eye(3)[(ours.labels + shift) % 3], ours.families, ours.files)
        found = evaluate(extreme, CLASSES)
        worst, best = ("_ci_low", "_ci_high") if not shift else ("_ci_high", "_ci_low")
        for name in HEADLINE:
            assert found[name] == found[name + best] == 1 - shift
            assert 0.03 < abs(found[name + worst] - found[name]) < 0.3
        # Clopper and Pearson's interval of 34 patients in 34 begins at 0.897.
        assert abs(found["patient_accuracy" + worst] - found["patient_accuracy"]) == pytest.approx(0.103, abs=0.03)
        if not shift:
            assert (found["macro_auroc"], found["macro_auprc"], found["ece"], found["brier"]) == (1, 1, 0, 0)


def test_auroc_counts_pairs_in_the_right_order() -> None:
    # Class 0 against the rest: of 2 x 2 pairs 3 are in order; class 1 mirrors it.
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.5, 0.5], [0.1, 0.9]])
    found = evaluate(Predictions(np.array([0, 0, 1, 1]), probabilities, np.arange(4), np.arange(4)), ("a", "b"))
    assert found["macro_auroc"] == 0.75
