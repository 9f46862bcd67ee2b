"""What dumb methods reach with the same labels on the same test: without them no figure means anything."""

import numpy as np
import torch
from torch import Tensor

from sslbt.data.preprocess import resize
from sslbt.evaluation.features import extract, linear_probe
from sslbt.nn.encoder import Encoder


def majority(labels: np.ndarray, count: int, classes: int) -> np.ndarray:
    """Always the commonest class among the labels; (count, classes)."""
    return np.tile(np.bincount(labels, minlength=classes) / len(labels), (count, 1))


def raw_pixels(labelled: Tensor, labels: np.ndarray, test: Tensor, classes: int) -> np.ndarray:
    """Logistic regression on the slices themselves, at 32 x 32."""
    return _regression(_pixels(labelled), labels, _pixels(test), classes)


def random_encoder(
    labelled: Tensor, labels: np.ndarray, test: Tensor, classes: int, width: int, seed: int
) -> np.ndarray:
    """Logistic regression on the features of the same network with its first, random weights."""
    torch.manual_seed(seed)
    encoder = Encoder(width)
    return _regression(extract(encoder, labelled), labels, extract(encoder, test), classes)


def _pixels(slices: Tensor) -> np.ndarray:
    return resize(slices, 32).flatten(1).numpy()


def _regression(features: np.ndarray, labels: np.ndarray, test: np.ndarray, classes: int) -> np.ndarray:
    fitted = linear_probe().fit(features, labels)
    probabilities = np.zeros((len(test), classes))
    probabilities[:, fitted.classes_] = fitted.predict_proba(test)
    return probabilities
