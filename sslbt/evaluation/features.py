"""What a frozen encoder makes of slices, and how far a simple classifier gets with it."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from torch import Tensor, nn

from sslbt.nn.encoder import Encoder

BATCH = 32  # larger maps than of so many come from fresh memory each time, which takes as long as computing them


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
