"""What the loop is given to train: each way's batches and loss."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sslbt.nn.heads import Classifier
from sslbt.pretext.masking import Restoration
from sslbt.pretext.pairs import Contrast, Pairs
from sslbt.training.augment import STRONG, WEAK


@dataclass
class Restore:
    """Every slice once an epoch, weakly augmented, a region of it hidden."""

    model: Restoration
    slices: Tensor  # (slices, 1, size, size)
    batch: int

    @property
    def steps(self) -> int:
        return max(1, len(self.slices) // self.batch)

    def batches(self) -> Iterator[Tensor]:
        order = torch.randperm(len(self.slices))
        for step in range(self.steps):  # what doesn't fill a batch waits for another epoch
            yield WEAK(self.slices[order[step * self.batch : (step + 1) * self.batch]])

    def loss(self, batch: Tensor) -> Tensor:
        return self.model.loss(batch)


@dataclass
class Compare:
    """`count` positive pairs an epoch and as many negative ones, drawn anew each epoch."""

    model: Contrast
    slices: Tensor
    pairs: Pairs
    count: int
    batch: int  # pairs

    @property
    def _all(self) -> int:
        # With `ntxent` the negatives are the other rows of the batch, so that only positive pairs are drawn.
        return 2 * self.count if self.model.objective == "margin" else self.count

    @property
    def steps(self) -> int:
        return max(1, self._all // self.batch)

    def batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        generator = np.random.default_rng(int(torch.randint(2**31, ())))
        rows = self.pairs.positive(self.count, generator)
        if self._all > self.count:
            rows = np.concatenate([rows, self.pairs.negative(self.count, generator)])
        equal = np.arange(len(rows)) < self.count
        order = generator.permutation(len(rows))
        for step in range(self.steps):
            chosen = order[step * self.batch : (step + 1) * self.batch]
            first, second = rows[chosen].T
            groups = torch.from_numpy(self.pairs.groups[first])
            views = STRONG(self.slices[torch.from_numpy(first)]), STRONG(self.slices[torch.from_numpy(second)])
            device = self.slices.device
            yield *views, torch.from_numpy(equal[chosen]).to(device), groups.to(device)

    def loss(self, batch: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        return self.model.loss(*batch)


@dataclass
class Classify:
    """Every labelled slice at least once an epoch, and at least 16 batches: twelve slices come in many guises."""

    model: Classifier
    slices: Tensor
    labels: Tensor
    batch: int

    @property
    def steps(self) -> int:
        return max(16, -(-len(self.slices) // self.batch))

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        rounds = -(-self.steps * self.batch // len(self.slices))
        order = torch.cat([torch.randperm(len(self.slices)) for _ in range(rounds)])
        for step in range(self.steps):
            chosen = order[step * self.batch : (step + 1) * self.batch]
            yield STRONG(self.slices[chosen]), self.labels[chosen]

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        slices, labels = batch
        weight = 1 / torch.bincount(self.labels)[labels]  # every class counts the same
        losses = F.cross_entropy(self.model(slices).float(), labels, label_smoothing=0.1, reduction="none")
        return (losses * weight).sum() / weight.sum()
