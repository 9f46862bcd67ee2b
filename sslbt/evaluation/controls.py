"""What dumb methods reach with the same labels on the same test: without them no figure means anything.

Each learns from `labelled` slices (n, 1, size, size) and their `labels` (n,), numbers below `classes`, and gives the
probabilities (m, classes) of `test` slices (m, 1, size, size); of a class it has no label of, zero.
"""

import numpy as np
import torch
from scipy.stats import entropy
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from sslbt.data.preprocess import resize
from sslbt.evaluation.features import extract, linear_probe
from sslbt.evaluation.metrics import Metrics
from sslbt.nn.encoder import Encoder

SHUFFLES = 20
BINS = 32  # of the grey levels, for their entropy
BRIGHT = 0.5  # of the picture's range
INTENSITIES = (
    "mean",
    "deviation",
    "skewness",
    "kurtosis",
    "25th percentile",
    "median",
    "75th percentile",
    "90th percentile",
    "entropy",
    "share of bright pixels",
)


def majority(labels: np.ndarray, count: int, classes: int) -> np.ndarray:
    """Always the commonest class among the labels; (count, classes)."""
    return np.tile(np.bincount(labels, minlength=classes) / len(labels), (count, 1))


def raw_pixels(labelled: Tensor, labels: np.ndarray, test: Tensor, classes: int) -> np.ndarray:
    """Logistic regression on the slices themselves, at 32 x 32."""
    return _regression(_pixels(labelled), labels, _pixels(test), classes)


def intensities(labelled: Tensor, labels: np.ndarray, test: Tensor, classes: int) -> np.ndarray:
    """Logistic regression on ten numbers that know how grey a slice is, not where (see `INTENSITIES`)."""
    judge = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))
    return _regression(_intensities(labelled), labels, _intensities(test), classes, judge)


def random_encoder(
    labelled: Tensor, labels: np.ndarray, test: Tensor, classes: int, width: int, seed: int
) -> np.ndarray:
    """Logistic regression on the features of the same network with its first, random weights."""
    torch.manual_seed(seed)
    encoder = Encoder(width)
    return _regression(extract(encoder, labelled), labels, extract(encoder, test), classes)


def shuffled_labels(
    encoder: Encoder, labelled: Tensor, labels: np.ndarray, test: Tensor, classes: int, seed: int
) -> np.ndarray:
    """Logistic regression on an encoder's features with the labels dealt out anew, `SHUFFLES` times.

    One deal of a dozen labels may hit the truth by luck; the mean of many has to be chance, 1 / classes in balanced
    accuracy. If it is above, the test leaks into what is measured.

    Returns:
        (SHUFFLES, m, classes).
    """
    generator = np.random.default_rng(seed)
    known, asked = extract(encoder, labelled), extract(encoder, test)
    return np.stack([_regression(known, generator.permutation(labels), asked, classes) for _ in range(SHUFFLES)])


def mean_metrics(repeats: list[Metrics]) -> Metrics:
    """Each figure's mean over repeats, ends of intervals too: what a typical repeat reaches."""
    return {name: float(np.mean([own[name] for own in repeats])) for name in repeats[0]}


def _intensities(slices: Tensor) -> np.ndarray:
    """The first-order features `INTENSITIES` of slices (n, 1, size, size), as in radiomics, (n, 10)."""
    greys = slices.flatten(1).numpy().astype(float)
    mean, deviation = greys.mean(axis=1), greys.std(axis=1)
    away = (greys - mean[:, None]) / deviation.clip(1e-9)[:, None]
    shares = np.stack([np.histogram(own, BINS, (0, 1))[0] / len(own) for own in greys])
    return np.column_stack(
        [
            mean,
            deviation,
            (away**3).mean(axis=1),
            (away**4).mean(axis=1) - 3,
            *np.percentile(greys, [25, 50, 75, 90], axis=1),
            entropy(shares, axis=1, base=2),
            (greys > BRIGHT).mean(axis=1),
        ]
    )


def _pixels(slices: Tensor) -> np.ndarray:
    return resize(slices, 32).flatten(1).numpy()


def _regression(
    features: np.ndarray, labels: np.ndarray, test: np.ndarray, classes: int, judge: Pipeline | None = None
) -> np.ndarray:
    fitted = (judge or linear_probe()).fit(features, labels)
    probabilities = np.zeros((len(test), classes))
    probabilities[:, fitted.classes_] = fitted.predict_proba(test)
    return probabilities
