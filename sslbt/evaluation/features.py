"""What a frozen encoder makes of slices, and how far a simple classifier gets with it."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from torch import Tensor, nn

from sslbt.nn.encoder import Encoder

BATCH = 128
NEIGHBOURS = 20


@torch.no_grad()
def extract(encoder: Encoder, slices: Tensor) -> np.ndarray:
    """Pooled features of slices (n, 1, size, size), (n, channels)."""
    device = next(encoder.parameters()).device
    encoder.eval()
    return torch.cat([encoder.pooled(part.to(device)).float().cpu() for part in slices.split(BATCH)]).numpy()


@torch.no_grad()
def logits(model: nn.Module, slices: Tensor) -> np.ndarray:
    """Logits of a classifier for slices (n, 1, size, size), (n, classes)."""
    device = next(model.parameters()).device
    model.eval()
    return torch.cat([model(part.to(device)).float().cpu() for part in slices.split(BATCH)]).numpy()


def linear_probe() -> Pipeline:
    """Logistic regression on normalised features."""
    regression = LogisticRegression(C=0.01, max_iter=1000, class_weight="balanced")
    return make_pipeline(Normalizer(), StandardScaler(), regression)


class Probe:
    """Watches a pretraining: how well classes can be read off the frozen features of validation patients.

    Each patient family is judged by the other validation families only, so that no training label is read.
    """

    def __init__(self, slices: Tensor, labels: np.ndarray, families: np.ndarray, epochs: int, every: int = 5) -> None:
        self.slices, self.labels, self.families = slices, labels, families
        self.last, self.every = epochs - 1, every

    def __call__(self, epoch: int, model: nn.Module) -> dict[str, float]:
        if epoch % self.every and epoch != self.last:
            return {}
        features = extract(model.encoder, self.slices)  # type: ignore[arg-type]
        found = {"probe/rank": effective_rank(features)}
        neighbours = KNeighborsClassifier(n_neighbors=NEIGHBOURS, metric="cosine")
        for name, judge in (("knn", neighbours), ("linear", linear_probe())):
            predicted = self._by_others(judge, features)
            if (predicted >= 0).all():
                recalls = [(predicted[self.labels == c] == c).mean() for c in np.unique(self.labels)]
                found[f"probe/{name}_balanced_accuracy"] = float(np.mean(recalls))
        return found

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

    1 means that all slices look the same to the encoder: it has collapsed.
    """
    values = np.linalg.svd(features - features.mean(axis=0), compute_uv=False)
    shares = values / max(values.sum(), 1e-12)
    return float(np.exp(-(shares * np.log(shares.clip(1e-12))).sum()))
