import numpy as np
import pytest
from sklearn import metrics as peer

from sslbt.evaluation import ranking


@pytest.mark.parametrize("digits", [0, 1, 15])
@pytest.mark.parametrize("chunk", [1, 2**21])
def test_areas_of_weighted_slices_are_those_of_scikit_learn(monkeypatch, digits, chunk) -> None:
    monkeypatch.setattr(ranking, "CELLS", chunk)
    generator = np.random.default_rng(digits)
    rows = generator.integers(0, 20, 200)
    positive = generator.random(200) < 0.3
    scores = np.round(generator.normal(0, 1, 200) + positive, digits)  # to no digit: nearly all are ties
    weights = generator.integers(0, 4, (7, 20)) * generator.random((7, 1))
    auroc, auprc = ranking.areas(scores, positive, rows, weights)
    for number, own in enumerate(weights[:, rows]):
        assert auroc[number] == pytest.approx(peer.roc_auc_score(positive, scores, sample_weight=own))
        assert auprc[number] == pytest.approx(peer.average_precision_score(positive, scores, sample_weight=own))


def test_areas_by_hand() -> None:
    # Positives at 0.9 and 0.5, negatives at 0.7 and 0.5: of four pairs two and a half are in order; the first positive
    # is met at precision 1, the second at 2 / 4.
    scores, positive = np.array([0.9, 0.7, 0.5, 0.5]), np.array([True, False, True, False])
    auroc, auprc = ranking.areas(scores, positive, np.arange(4), np.ones((1, 4)))
    assert (auroc[0], auprc[0]) == pytest.approx((2.5 / 4, (1 + 2 / 4) / 2))


@pytest.mark.filterwarnings("error")
def test_a_sample_of_one_kind_has_no_areas() -> None:
    weights = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 0]])
    found = ranking.areas(np.array([0.3, 0.2, 0.1]), np.array([True, False, True]), np.arange(3), weights)
    for own in found:
        assert np.isfinite(own).tolist() == [False, False, True, False]
    for which in (True, False):
        nothing = ranking.areas(np.ones(2), np.full(2, which), np.arange(2), np.ones((1, 2)))
        assert np.isnan(nothing).all()
