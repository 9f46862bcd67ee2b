"""How good features are getting while they are learnt, by validation patients: never by the loss, never by the test."""

import numpy as np
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from torch import Tensor, nn

from sslbt.evaluation.features import extract, linear_probe
from sslbt.terminal import say

NEIGHBOURS = 20
PROBES = 12  # in a training, about
COLLAPSED = 0.01  # spread below which features of different slices are as good as equal


class Probe:
    """Watches a pretraining: how well classes can be read off the frozen features of validation patients.

    Each patient family is judged by the other validation families only, so that no training label is read.
    By `probe/score`, the mean of both balanced accuracies, `training.state` finds the best epoch.
    """

    def __init__(self, slices: Tensor, labels: np.ndarray, families: np.ndarray, epochs: int) -> None:
        self.slices, self.labels, self.families = slices, labels, families
        self.epochs = set(np.linspace(epochs - 1, 0, PROBES).astype(int)) if epochs > PROBES else set(range(epochs))
        self.warned = False

    def __call__(self, epoch: int, model: nn.Module) -> dict[str, float]:
        if epoch not in self.epochs:
            return {}
        features = extract(model.encoder, self.slices)  # type: ignore[arg-type]
        found = {"probe/rank": effective_rank(features), "probe/spread": spread(features)}
        if found["probe/spread"] < COLLAPSED and not self.warned:
            say("WARNING: the features have collapsed: all slices look alike to the encoder; lower learning_rate")
            self.warned = True
        neighbours = KNeighborsClassifier(n_neighbors=NEIGHBOURS, metric="cosine")
        for name, judge in (("knn", neighbours), ("linear", linear_probe())):
            predicted = self._by_others(judge, features)
            if (predicted >= 0).all():
                recalls = [(predicted[self.labels == c] == c).mean() for c in np.unique(self.labels)]
                found[f"probe/{name}_balanced_accuracy"] = float(np.mean(recalls))
        judged = [value for name, value in found.items() if name.endswith("accuracy")]
        return found | ({"probe/score": float(np.mean(judged))} if judged else {})

    def _by_others(self, judge: Pipeline | KNeighborsClassifier, features: np.ndarray) -> np.ndarray:
        """Each of five groups of families predicted from the other four; -1 where those are too few to judge."""
        group = np.unique(self.families, return_inverse=True)[1] % 5
        predicted = np.full(len(self.labels), -1)
        for own in range(5):
            inside = group == own
            if inside.any() and len(np.unique(self.labels[~inside])) > 1 and (~inside).sum() >= NEIGHBOURS:
                predicted[inside] = judge.fit(features[~inside], self.labels[~inside]).predict(features[inside])
        return predicted


def effective_rank(features: np.ndarray) -> float:
    """How many directions the features use: the entropy of the singular values, exponentiated (Roy & Vetterli 2007).

    1 means that all slices differ in one direction only: it has collapsed.
    """
    values = np.linalg.svd(features - features.mean(axis=0), compute_uv=False)
    shares = values / max(values.sum(), 1e-12)
    return float(np.exp(-(shares * np.log(shares.clip(1e-12))).sum()))


def spread(features: np.ndarray) -> float:
    """How far normalised features (slices, channels) lie apart: 1 spread over the whole sphere, 0 all in one point.

    The deviation of a channel times the root of their number (Chen & He 2021, SimSiam, section 4.1).
    """
    normal = features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)
    return float(np.sqrt(normal.var(axis=0).sum()))
