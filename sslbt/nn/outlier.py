"""How little a picture looks like an upright slice of a head by MRI."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from sslbt.data.preprocess import resize

SIZE = 64  # enough for where the eyes, the nose and the neck are


class Outlier(nn.Module):
    """A small network of its own, apart from the classifier's encoder, so that it does not depend on any label.

    Trained by `evaluation.outliers.fit_outlier` to tell slices from pictures that are none (outlier exposure,
    Hendrycks, Mazeika and Dietterich 2019, arXiv:1812.04606). A picture whose score is over `above` is not taken for a
    brain MRI.
    """

    above: Tensor

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        widths = (1, width, 2 * width, 4 * width, 8 * width)
        halvings = [_halving(a, b) for a, b in pairwise(widths)]
        place = (SIZE // 16) ** 2  # not pooled away: where things are tells up from down
        self.net = nn.Sequential(*halvings, nn.Flatten(), nn.Linear(8 * width * place, 1))
        self.register_buffer("above", torch.tensor(0.0))

    def forward(self, slices: Tensor) -> Tensor:
        """(batch, 1, 256, 256) in [0, 1] to scores (batch,): the log odds of a stranger."""
        return self.net(resize(slices, SIZE)).squeeze(1)


def _halving(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())
