import numpy as np
import pytest
from sklearn.preprocessing import normalize

from sslbt.training.propagation import ALPHA, NEIGHBOURS, TEMPERATURE, propagate, surest

PATIENTS = np.repeat([f"P{i:02}" for i in range(30)], 4)
CLASS = np.repeat(np.arange(30) % 3, 4)  # of every slice


def features(noise: float, seed: int = 0) -> np.ndarray:
    """Slices around their class's own direction."""
    generator = np.random.default_rng(seed)
    return np.eye(3, 16)[CLASS] + noise * generator.normal(size=(len(CLASS), 16))


def few(*patients: int) -> np.ndarray:
    """The first slice of these patients is labelled."""
    labels = np.full(len(CLASS), -1)
    labels[[4 * patient for patient in patients]] = CLASS[[4 * patient for patient in patients]]
    return labels


def brute_force(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The same by loops and a long walk along the links instead of a solution in one step."""
    unit = normalize(points)
    unit = normalize(unit - unit.mean(axis=0))
    names = np.unique(PATIENTS)
    links = np.zeros((len(names), len(names)))
    for i in range(len(unit)):
        others = [j for j in range(len(unit)) if PATIENTS[j] != PATIENTS[i]]
        nearest = sorted(others, key=lambda j: -float(unit[i] @ unit[j]))[:NEIGHBOURS]
        for j in nearest:
            weight = np.exp(unit[i] @ unit[j] / TEMPERATURE) / 16  # four slices each
            a, b = np.searchsorted(names, [PATIENTS[i], PATIENTS[j]])
            links[a, b] += weight
            links[b, a] += weight
    known = np.zeros((len(names), 3))
    for row in np.flatnonzero(labels >= 0):
        known[np.searchsorted(names, PATIENTS[row]), labels[row]] = 1
    degree = links.sum(axis=1)
    step = links / np.sqrt(degree[:, None] * degree[None, :])
    start = known / known.sum(axis=0)
    heard = start
    for _ in range(2000):
        heard = ALPHA * step @ heard + start
    heard = heard / heard.sum(axis=1, keepdims=True)
    heard = heard / heard.mean(axis=0)
    heard = heard / heard.sum(axis=1, keepdims=True)
    told = known.any(axis=1)
    heard[told] = known[told]
    return heard[np.searchsorted(names, PATIENTS)]


@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_a_long_walk_along_the_links_gives(seed: int) -> None:
    points, labels = features(0.4, seed), few(0, 1, 2, 4)
    np.testing.assert_allclose(propagate(points, PATIENTS, labels), brute_force(points, labels), atol=1e-6)


def test_a_label_a_class_is_enough_where_classes_are_apart() -> None:
    likely = propagate(features(0.1), PATIENTS, few(0, 1, 2))
    np.testing.assert_allclose(likely.sum(axis=1), 1)
    assert (likely.argmax(axis=1) == CLASS).all()
    assert (likely[:4] == [1, 0, 0]).all()  # the labelled patient's other slices are as certain as the labelled one


def test_a_patient_is_judged_by_all_slices_together() -> None:
    points = features(0.1)
    points[21] = np.eye(3, 16)[CLASS[21] - 1]  # one of four looks like another class
    likely = propagate(points, PATIENTS, few(0, 1, 2))
    assert (likely[20:24] == likely[20]).all()
    assert likely[21].argmax() == CLASS[21]


def test_a_common_class_does_not_swallow_the_others() -> None:
    keep = (CLASS == 0) | np.isin(PATIENTS, [f"P{i:02}" for i in range(12)])  # ten patients, four, four
    points, patients, labels = features(0.3)[keep], PATIENTS[keep], few(0, 1, 2)[keep]
    right = propagate(points, patients, labels).argmax(axis=1) == CLASS[keep]
    assert min(right[CLASS[keep] == label].mean() for label in range(3)) > 0.7


def test_two_patients_only_and_no_link_between_classes() -> None:
    points = np.array([[1.0, 0], [1, 0.1], [0, 1.0], [0.1, 1]])
    likely = propagate(points, np.array(["a", "a", "b", "b"]), np.array([0, -1, -1, 1]))
    assert likely.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]


def test_the_surest_patients_and_all_labelled_ones() -> None:
    patients = np.array(["a", "a", "b", "c", "c", "d"])
    likely = np.array([[0.6, 0.4]] * 2 + [[0.1, 0.9]] + [[1.0, 0.0]] * 2 + [[0.3, 0.7]])
    labels = np.array([0, -1, -1, -1, -1, -1])
    assert surest(likely, patients, labels, 0.5).tolist() == [0, 1, 2, 3, 4]  # c and b are surest, a is labelled
    assert surest(likely, patients, labels, 0.25).tolist() == [0, 1, 3, 4]
    assert surest(likely, patients, labels, 1).tolist() == list(range(6))
