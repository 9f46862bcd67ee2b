import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from sslbt.evaluation.intervals import interval, mean_interval, p_value, resample, with_prior


def test_samples_are_families_drawn_with_replacement() -> None:
    weights = resample(np.array([1.0, 1.0, 2.0]), 8, draws=4000)
    assert weights.shape == (4000, 3)
    assert (weights.sum(axis=1) == 8).all()
    assert weights.mean(axis=0) == pytest.approx([2, 2, 4], abs=0.1)
    assert weights.var(axis=0) == pytest.approx([1.5, 1.5, 2], abs=0.15)  # of a binomial number: n p (1 - p)


def test_an_interval_holds_what_was_measured_and_leaves_out_nan() -> None:
    draws = np.append(np.arange(1001.0), np.nan)
    assert interval(draws, 500) == (25, 975)
    assert interval(draws, 990) == (25, 990)
    assert interval(draws, 3) == (3, 975)
    assert all(math.isnan(end) for end in interval(np.full(5, np.nan), 1.0) + interval(draws, math.nan))


def test_p_by_hand() -> None:
    assert p_value(np.array([1.0] * 98 + [-1.0])) == pytest.approx(2 * 2 / 100)
    assert p_value(np.array([1.0] * 50 + [0.0] * 49)) == 1  # zeros speak for neither
    assert p_value(np.zeros(9)) == 1
    assert p_value(np.array([-2.0] * 999)) == pytest.approx(0.002)
    assert math.isnan(p_value(np.full(3, np.nan)))


def test_the_mean_is_over_slices_and_the_interval_over_patients() -> None:
    generator = np.random.default_rng(0)
    families = np.repeat(np.arange(60), 10)
    own = generator.normal(0, 1, 60)
    mean, low, high = mean_interval(own[families], families)
    assert mean == pytest.approx(own.mean())
    assert high - low == pytest.approx(2 * 1.96 * own.std() / math.sqrt(60), rel=0.15)
    independent = mean_interval(own[families], np.arange(600))
    assert independent[2] - independent[1] < 0.5 * (high - low)


def test_values_that_are_not_known_are_left_out() -> None:
    values, families = np.array([1, 0, 1, 1, np.nan, np.nan]), np.array(list("aabbbc"))
    assert mean_interval(values, families) == mean_interval(values[:4], families[:4])
    assert mean_interval(values, families)[0] == 0.75
    assert all(math.isnan(number) for number in mean_interval(values[4:], families[4:]))
    assert all(math.isnan(number) for number in mean_interval(values[:0], families[:0]))


@pytest.mark.parametrize("patients", [5, 34, 200])
def test_without_an_error_the_interval_is_about_the_exact_one(patients: int) -> None:
    exact = binomtest(patients, patients).proportion_ci(method="exact")
    mean, low, high = mean_interval(np.ones(patients, bool), np.arange(patients))
    assert (mean, high) == (1, 1)
    assert 0.5 < (1 - low) / (1 - exact.low) < 1.3
    mean, low, high = mean_interval(np.zeros(patients, bool), np.arange(patients))
    assert (mean, low) == (0, 0)
    assert 0.5 < high / (1 - exact.low) < 1.3


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_of_a_share_of_patients_the_coverage_adds_up(share: float) -> None:
    # Over every number of patients that could be right, with its probability: nothing is drawn but the bootstrap.
    patients = 34
    held = 0.0
    for right in range(patients + 1):
        _, low, high = mean_interval(np.arange(patients) < right, np.arange(patients))
        held += binom.pmf(right, patients, share) * (low <= share <= high)
    assert 0.92 <= held <= 0.99


def test_the_prior_is_a_patient_of_each_class_half_right_and_half_wrong() -> None:
    labels, rows = np.array([0, 0, 0, 2, 2, 2]), np.array([0, 0, 0, 1, 1, 1])
    sure = np.array([[0.8, 0.1, 0.1]] * 3 + [[0.2, 0.2, 0.6]] * 3)
    more, families, (answers,), weights = with_prior(labels, rows, sure)
    assert (more[:6].tolist(), families[:6].tolist(), answers[:6].tolist()) == (
        labels.tolist(),
        rows.tolist(),
        sure.tolist(),
    )
    assert weights[:2].tolist() == [1, 1]
    assert weights[2:].sum() == pytest.approx(2)  # classes 0 and 2; 1 has no patient
    assert answers.sum(axis=1) == pytest.approx(1)
    for truth in (0, 2):
        own = (more == truth) & (families > 1)
        right = own & (answers.argmax(axis=1) == truth)
        assert np.bincount(families)[np.unique(families[own])].tolist() == [
            3,
            3,
            3,
        ]  # slices, as many as the others have
        assert weights[np.unique(families[right])].sum() == pytest.approx(0.5)
        assert answers[right].max(axis=1) == pytest.approx(0.7)  # as sure as the others are on average
        assert answers[own & ~right].max(axis=1) == pytest.approx((0.7 + 1 / 3) / 2)


def test_in_the_prior_of_a_pair_each_is_half_right_and_they_seldom_differ() -> None:
    labels = rows = np.array([0, 1, 2])
    ours, theirs = np.eye(3), np.full((3, 3), 0.2) + 0.4 * np.eye(3)
    more, families, answers, weights = with_prior(labels, rows, ours, theirs)
    first = np.unique(families, return_index=True)[1][3:]
    right = [own[first].argmax(axis=1) == more[first] for own in answers]
    for own in right:
        assert weights[3:][own].sum() == pytest.approx(1.5)
    apart = weights[3:][right[0] != right[1]].sum()
    assert apart == pytest.approx(3 * 0.25 / 2)
