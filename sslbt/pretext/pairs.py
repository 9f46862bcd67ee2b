"""The contrastive way: which slices belong together and which do not."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from sslbt.errors import UserError
from sslbt.nn.encoder import Encoder
from sslbt.nn.heads import Projection
from sslbt.pretext.losses import margin_loss, nt_xent

KINDS = ("patient", "views", "label")


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

    def loss(self, first: Tensor, second: Tensor, equal: Tensor, groups: Tensor) -> Tensor:
        """Loss of pairs of slices (pairs, 1, size, size); `equal` and `groups` as in `losses`."""
        together = self.projection(self.encoder.pooled(torch.cat([first, second])))
        first, second = together.float().chunk(2)
        if self.objective == "margin":
            return margin_loss(first, second, equal)
        return nt_xent(first, second, groups, self.temperature)


class Pairs:
    """Draws positive and negative pairs of rows of a table (columns file, patient, family, label).

    Positive pairs by `kind`: `patient`, two slices of one patient (Azizi et al. 2021, MICLe; no class label is used);
    `views`, one slice seen twice (SimCLR); `label`, two slices of one class, as this project's origin did: that
    reads the class of every training slice. Negative pairs never share a family; with `label`, never a class.
    """

    def __init__(self, table: pd.DataFrame, kind: str) -> None:
        by = {"patient": table.patient, "views": table.file, "label": table.label}[kind]
        together = table.label if kind == "label" else table.family
        self.groups = pd.factorize(together)[0]  # rows of one group are never a negative pair
        self.members = [np.flatnonzero(by == value) for value in by.unique()]
        if len(np.unique(self.groups)) < 2:
            shared = "class" if kind == "label" else "patient family"
            raise UserError(f"pairs={kind}: all training slices are of one {shared}; add others to contrast them with")

    def positive(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """(count, 2) rows; slices take turns as first, the second is another of its kind where there is one."""
        rows_of = {row: members for members in self.members for row in members}
        rounds = -(-count // len(rows_of))
        first = np.concatenate([generator.permutation(len(rows_of)) for _ in range(rounds)])[:count]
        second = [_another(rows_of[row], row, generator) for row in first]
        return np.stack([first, second], axis=1)

    def negative(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """(count, 2) rows of different groups."""
        pairs = np.zeros((0, 2), int)
        while len(pairs) < count:
            drawn = generator.integers(len(self.groups), size=(2 * count, 2))
            pairs = np.concatenate([pairs, drawn[self.groups[drawn[:, 0]] != self.groups[drawn[:, 1]]]])
        return pairs[:count]


def _another(members: np.ndarray, row: int, generator: np.random.Generator) -> int:
    others = members[members != row]
    return int(generator.choice(others)) if len(others) else int(row)
