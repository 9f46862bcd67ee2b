"""Drift, on scores made up so that what changed is known."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.stats import kstest

from serve.drift import LEAST, Drift
from serve.reference import HANDFUL, KEY, QUANTITIES, WINDOW, Reference
from serve.session import Scores
from sslbt.errors import UserError

CLASSES = ("meningioma", "glioma", "pituitary")
CHANNELS, PLANE = 64, 8  # features lie near a plane of eight of their 64 dimensions


def of_patients(
    count: int,
    seed: int,
    slices: int = 10,
    only: int | None = None,
    surer: float = 0.0,
    stranger: float = 0.0,
    off_the_plane: float = 0.1,
) -> tuple[Scores, np.ndarray]:
    """Scores of so many patients, and whose they are; a patient has a class, and ways of its own in all else."""
    rng = np.random.default_rng(seed)
    families = np.repeat(np.arange(count), slices)
    label = np.repeat(np.arange(count) % 3 if only is None else np.full(count, only), slices)

    def of_each(spread: float) -> np.ndarray:
        return np.repeat(rng.normal(0, spread, count), slices)

    sure = 1 / (1 + np.exp(-(1.5 + 0.5 * label + surer + of_each(0.5) + rng.normal(0, 1, len(label)))))
    probabilities = np.repeat((0.5 * (1 - sure))[:, None], 3, axis=1) * 0.5
    probabilities[np.arange(len(label)), label] = 1 - probabilities.sum(axis=1) + probabilities[:, 0]
    strangeness = stranger - 2 + of_each(0.5) + rng.normal(0, 1, len(label))
    on = rng.normal(0, 1, (len(label), PLANE)) + 3 * np.eye(3, PLANE)[label]
    off = off_the_plane * (1 + of_each(0.1))[:, None] * rng.normal(0, 1, (len(label), CHANNELS - PLANE))
    parts = (probabilities, strangeness, np.hstack([on, off]))
    return Scores(*(part.astype(np.float32) for part in parts)), families


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.of(CLASSES, *of_patients(36, seed=2), *of_patients(99, seed=1))


def after(reference: Reference, scores: Scores) -> Drift:
    drift = Drift(reference)
    drift.add(scores)
    return drift


def test_too_few_slices_say_nothing(reference: Reference) -> None:
    fresh = Drift(reference).report()
    assert (fresh.slices, fresh.drifted, fresh.headline) == (0, False, 0)
    few = after(reference, of_patients(LEAST // 10 - 1, seed=3, stranger=9)[0]).report()
    assert few.slices == LEAST - 10
    assert not few.drifted
    assert few.sentence() == f"Too few slices to tell drift: {LEAST - 10} of the {LEAST} that are needed."


def test_patients_of_the_same_kind_seldom_alarm(reference: Reference) -> None:
    """A few patients each, drawn at random; one test for each slice as if it were a patient would alarm all day."""
    rng, alarms, naive = np.random.default_rng(0), 0, 0
    for seed in range(100):
        scores, families = of_patients(30, seed=100 + seed, slices=25)
        taken = np.isin(families, rng.choice(30, HANDFUL, replace=False))
        some = Scores(scores.probabilities[taken], scores.strangeness[taken], scores.features[taken])
        alarms += after(reference, some).report().drifted
        among = reference.values[:, 1]
        naive += kstest(some.strangeness, among).pvalue < 0.05
    assert alarms <= 12  # twice the 5 % promised, and what chance adds
    assert naive >= 30


@pytest.mark.parametrize(
    ("change", "alarm", "said"),
    [
        ({"surer": -3.0}, "confidence", "confidence is lower"),
        ({"surer": 4.0}, "confidence", "confidence is higher"),
        ({"stranger": 3.0}, "strangeness", "strangeness is higher"),
        ({"off_the_plane": 0.3}, "features", "features lie farther from what was learnt"),
    ],
)
def test_changed_pictures_are_told_from_changed_classes(
    reference: Reference, change: dict[str, float], alarm: str, said: str
) -> None:
    report = after(reference, of_patients(30, seed=4, **change)[0]).report()
    assert report.alarms == (alarm,)
    assert "the pictures changed, not clearly the mix of classes" in report.sentence()
    assert said in report.sentence()


def test_one_class_only_is_a_change_of_classes_alone(reference: Reference) -> None:
    """Though the classes differ in confidence and features."""
    for label, name in enumerate(CLASSES):
        report = after(reference, of_patients(30, seed=5, only=label)[0]).report()
        assert report.alarms == ("classes",), name
        assert report.shares[name] == (1.0, pytest.approx(1 / 3))
        assert "the mix of classes changed, not the pictures of a class" in report.sentence()
        assert f"{name} is found in 100% of them, in the reference in 33%" in report.sentence()


def test_statistics_are_those_of_scipy(reference: Reference) -> None:
    """Within one class the distance of the ranks from evenness is that of the two samples, but for the ranks' steps."""
    scores, _ = of_patients(30, seed=6, only=1, surer=-1)
    report = after(reference, scores).report()
    among = reference.values[reference.found == 1]
    away = np.linalg.norm(
        (scores.features - reference.center)
        @ (np.eye(CHANNELS) - (basis := reference.basis.astype(float)) @ np.linalg.inv(basis.T @ basis) @ basis.T),
        axis=1,
    )
    for column, values in enumerate((scores.probabilities.max(axis=1), scores.strangeness, away)):
        theirs = kstest(values, among[:, column]).statistic
        assert report.quantities[QUANTITIES[column + 1]].statistic == pytest.approx(theirs, abs=1 / len(among) + 0.02)
    assert report.quantities["classes"].statistic == pytest.approx(2 / 3)


def test_only_the_last_slices_count(reference: Reference) -> None:
    drift = Drift(reference)
    drift.add(of_patients(100, seed=7, stranger=3)[0])
    assert drift.report().drifted
    like, _ = of_patients(WINDOW // 10, seed=8)
    for index in range(WINDOW):
        drift.add(like.of(index))
    report = drift.report()
    assert (report.slices, report.seen) == (WINDOW, 1000 + WINDOW)
    assert report.as_metrics() == pytest.approx(after(reference, like).report().as_metrics())
    assert not report.drifted


def test_scores_that_are_not_finite_are_left_out(reference: Reference) -> None:
    scores, _ = of_patients(30, seed=9)
    before = after(reference, scores).report()
    broken = Scores(np.full((2, 3), np.nan), np.zeros(2), np.zeros((2, CHANNELS)))
    drift = after(reference, broken)
    drift.add(scores)
    assert drift.report() == before


def test_metrics(reference: Reference) -> None:
    report = after(reference, of_patients(30, seed=10, stranger=3)[0]).report()
    metrics = report.as_metrics()
    assert metrics["drift"] == max(metrics[f"drift_{name}"] for name in QUANTITIES) == metrics["drift_strangeness"] > 1
    assert (metrics["drift_alarm"], metrics["drift_slices"]) == (1, 300)


def test_through_the_files_metadata(reference: Reference) -> None:
    stored = {KEY: reference.to_metadata(), "classes": json.dumps(CLASSES)}
    assert len(stored[KEY]) < 100_000
    scores, _ = of_patients(30, seed=11)
    again = Reference.from_metadata(stored, CHANNELS)
    assert again is not None
    assert after(again, scores).report() == after(reference, scores).report()
    assert Reference.from_metadata({"classes": json.dumps(CLASSES)}, CHANNELS) is None
    for damaged in (stored[KEY][:2000], "no base64", stored[KEY][:-40] + "A" * 40):
        with pytest.raises(UserError, match="reference for drift is damaged"):
            Reference.from_metadata(stored | {KEY: damaged}, CHANNELS)
    with pytest.raises(UserError, match="its parts do not fit"):  # a wider network's
        Reference.from_metadata(stored, CHANNELS + 1)


def test_a_reference_of_a_newer_version_says_so(reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = {KEY: reference.to_metadata(), "classes": json.dumps(CLASSES)}
    monkeypatch.setattr("serve.reference.FORMAT", 0)
    with pytest.raises(UserError, match="made by a newer version of sslbt; update sslbt"):
        Reference.from_metadata(stored, CHANNELS)


def test_a_reference_needs_four_families() -> None:
    three, four = of_patients(3, seed=12), of_patients(4, seed=12)
    for unseen, learnt in ((three, four), (four, three)):
        with pytest.raises(ValueError, match="3 families"):
            Reference.of(CLASSES, *unseen, *learnt)
    smallest = Reference.of(CLASSES, *four, *four)
    for slices in (LEAST, WINDOW):
        assert smallest.limits_for(slices).shape == (len(QUANTITIES),)


def test_more_patients_have_narrower_limits(reference: Reference) -> None:
    assert (reference.limits_for(WINDOW) < reference.limits_for(LEAST)).all()
    assert (reference.limits_for(100 * WINDOW) == reference.limits_for(WINDOW)).all()


def test_a_batch_takes_less_than_a_millisecond_and_threads_lose_none(reference: Reference) -> None:
    scores, _ = of_patients(2, seed=13, slices=8)
    drift, times = Drift(reference), []
    for _ in range(200):
        began = time.perf_counter()
        drift.add(scores)
        times.append(time.perf_counter() - began)
    assert np.median(times) < 1e-3
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(drift.add, [scores] * 400))
    assert drift.report().seen == 600 * 16
