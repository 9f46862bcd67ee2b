"""The contrastive way: which slices belong together and which do not."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from sslbt.errors import UserError
from sslbt.nn.encoder import Encoder
from sslbt.nn.heads import Projection


class Contrast(nn.Module):
    """Encoder and projection, trained to tell equal pairs from others.

    Args:
        encoder: the network to pretrain.
        objective: `ntxent`, where the batch's other groups are the negatives, or `margin`, where they are drawn.
        temperature: of `ntxent`.
    """

    def __init__(self, encoder: Encoder, objective: str, temperature: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.projection = Projection(encoder.channels)
        self.objective = objective
        self.temperature = temperature

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Projections (pairs, 128), normalised, of pairs of slices (pairs, 1, size, size)."""
        together = self.projection(self.encoder.pooled(torch.cat([first, second])))
        first, second = together.float().chunk(2)
        return first, second


class Pairs:
    """Draws positive and negative pairs of rows of a table (columns file, patient, family, label).

    Positive pairs by `kind`: `patient`, two slices of one patient (Azizi et al. 2021, MICLe; no class label is used);
    `views`, one slice seen twice (SimCLR); `label`, two slices of one class, as this project's origin did: that
    reads the class of every training slice. Negative pairs never share a family; with `label`, never a class.

    Raises:
        KeyError: another kind.
        UserError: there is nobody to contrast with, all rows being of one family (with `label`, of one class).
    """

    def __init__(self, table: pd.DataFrame, kind: str) -> None:
        by = {"patient": table.patient, "views": table.file, "label": table.label}[kind]
        together = table.label if kind == "label" else table.family
        self.groups = pd.factorize(together)[0]  # rows of one group are never a negative pair
        own = pd.factorize(by)[0]
        # All rows, those that may be a positive pair side by side; where each one's stretch begins, and how long it is.
        self.order = np.argsort(own, kind="stable")
        self.place = np.argsort(self.order)
        length = np.bincount(own)
        self.length, self.start = length[own], (np.cumsum(length) - length)[own]
        if len(np.unique(self.groups)) < 2:
            shared = "class" if kind == "label" else "patient family"
            raise UserError(f"pairs={kind}: all training slices are of one {shared}; add others to contrast them with")

    def positive(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """(count, 2) rows; slices take turns as first, the second is another of its kind where there is one."""
        rounds = -(-count // len(self.order))
        first = np.concatenate([generator.permutation(len(self.order)) for _ in range(rounds)])[:count]
        start, length = self.start[first], self.length[first]
        further = 1 + (generator.random(count) * (length - 1)).astype(int)
        second = self.order[start + (self.place[first] - start + further) % length]
        return np.stack([first, second], axis=1)

    def negative(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """(count, 2) rows of different groups."""
        pairs = np.zeros((0, 2), int)
        while len(pairs) < count:
            drawn = generator.integers(len(self.groups), size=(2 * count, 2))
            pairs = np.concatenate([pairs, drawn[self.groups[drawn[:, 0]] != self.groups[drawn[:, 1]]]])
        return pairs[:count]
