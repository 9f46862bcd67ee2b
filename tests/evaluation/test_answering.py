"""Sets of classes: the promise holds for new patients, by simulation, and the rule by hand."""

import numpy as np
import pytest

from sslbt.evaluation.answering import curve, over_patients, plausible_above, sets
from sslbt.evaluation.metrics import Predictions


def of_truth(given: dict[str, list[float]]) -> Predictions:
    """Two classes; the probability of the true one by patient."""
    p = np.array([value for own in given.values() for value in own])
    families = np.repeat(list(given), [len(own) for own in given.values()])
    return Predictions(np.zeros(len(p), int), np.stack([p, 1 - p], 1), families, families)


def test_the_threshold_by_hand():
    # Four patients promise up to 4/5. Each weighs a fifth, however many slices: b's two weigh a tenth each.
    given = of_truth({"a": [0.9], "b": [0.8, 0.3], "c": [0.7], "d": [0.6]})
    assert plausible_above(given, level=0.7) == (0.6, 0.7)  # a, half of b, c and d: .2 + .1 + .2 + .2
    assert plausible_above(given, level=0.5) == (0.7, 0.5)
    assert plausible_above(given, level=0.71) == (0.3, 0.71)
    assert plausible_above(given, level=0.9) == (0.3, 0.8)  # more than four patients can promise


def test_more_slices_of_a_patient_do_not_weigh_more():
    once = of_truth({"a": [0.9], "b": [0.2], "c": [0.8], "d": [0.7]})
    often = of_truth({"a": [0.9], "b": [0.2] * 50, "c": [0.8], "d": [0.7]})
    assert plausible_above(once, 0.6) == plausible_above(often, 0.6) == (0.7, 0.6)


def patients(generator: np.random.Generator, count: int) -> Predictions:
    """Slices of one patient are alike: easy or hard together, and some patients have many."""
    sizes = generator.integers(1, 30, count)
    families = np.repeat(np.arange(count), sizes)
    ease = generator.normal(1, 1.5, count)[families] + generator.normal(0, 0.4, len(families))
    labels = generator.integers(0, 3, count)[families]
    logits = generator.normal(0, 0.7, (len(families), 3))
    logits[np.arange(len(families)), labels] += ease
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Predictions(labels, probabilities, families.astype(str), families.astype(str))


@pytest.mark.parametrize(("count", "level"), [(17, 0.9), (9, 0.9), (40, 0.8)])
def test_sets_hold_the_truth_for_new_patients_as_often_as_promised(count, level):
    generator = np.random.default_rng(0)
    held = []
    for _ in range(400):
        threshold, reached = plausible_above(patients(generator, count), level)
        assert reached == pytest.approx(level)
        new = patients(generator, 40)
        inside = sets(new.probabilities, threshold)[np.arange(len(new.labels)), new.labels]
        held.append(np.mean([inside[new.families == one].mean() for one in np.unique(new.families)]))
    assert level - 0.01 < np.mean(held) < level + 1 / count + 0.02  # it promises enough, and not much more


def test_a_pooled_threshold_would_break_the_promise():
    """What the weights are for: with slices counted one by one, patients with many hard slices go unprotected."""
    generator = np.random.default_rng(1)

    def uneven(count: int) -> Predictions:  # easy patients have many slices, hard ones few
        hard = generator.random(count) < 0.3
        return of_truth({str(i): [0.2 if own else 0.9] * (1 if own else 40) for i, own in enumerate(hard)})

    ours, pooled = [], []
    for _ in range(300):
        calibration, new = uneven(20), uneven(20)
        truth = calibration.probabilities[:, 0]
        for found, threshold in ((ours, plausible_above(calibration)[0]), (pooled, np.quantile(truth, 0.1))):
            inside = new.probabilities[:, 0] >= threshold
            found.append(np.mean([inside[new.families == one].mean() for one in np.unique(new.families)]))
    assert np.mean(ours) >= 0.9
    assert np.mean(pooled) < 0.85


def test_the_curve_by_hand():
    p = np.array([0.95, 0.9, 0.8, 0.7, 0.6])
    truth = np.array([0, 0, 1, 0, 1])  # the third and the fifth are wrong
    given = Predictions(truth, np.stack([p, 1 - p], 1), np.array(list("abcde")), np.array(list("abcde")))
    found = curve(given).set_index("coverage").accuracy
    assert found.index.to_numpy() == pytest.approx(np.arange(1, 21) / 20)
    assert [found.iloc[place] for place in (3, 7, 11, 15, 19)] == pytest.approx([1, 1, 2 / 3, 3 / 4, 3 / 5])


def test_intervals_of_the_curve_are_over_patients():
    generator = np.random.default_rng(2)
    found = curve(patients(generator, 30))
    assert (found.accuracy_ci_low <= found.accuracy).all()
    assert (found.accuracy <= found.accuracy_ci_high).all()
    assert found.accuracy.iloc[3] > found.accuracy.iloc[-1]  # surer slices are righter here


def test_every_patient_weighs_the_same():
    mean, low, high = over_patients(np.array([1, 1, 1, 1, 0, 0, 1]), np.array(list("aaaabcd")))
    assert mean == 0.5  # one, none, none, one
    assert low < 0.5 < high
