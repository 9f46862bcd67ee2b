"""What the loop is given to train: which slices an epoch shows, what a batch is, and its loss."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from sslbt import parallel
from sslbt.nn.heads import Classifier
from sslbt.pretext.losses import margin_loss, nt_xent
from sslbt.pretext.masking import Restoration, hidden_error, random_regions
from sslbt.pretext.pairs import Contrast, Pairs
from sslbt.training.augment import STRONG, WEAK, Augmentation, draw
from sslbt.training.feed import Feed


@dataclass
class Restore:
    """Every slice once an epoch, weakly augmented, a region of it hidden."""

    model: Restoration
    feed: Feed
    rows: np.ndarray  # of the slices to learn from
    batch: int

    def __post_init__(self) -> None:
        self.batch = parallel.shared_batch(self.batch, len(self.rows))

    @property
    def steps(self) -> int:
        return len(self.rows) // self.batch  # what doesn't fill a batch waits for another epoch

    def plan(self, generator: Generator) -> np.ndarray:
        """(steps, batch) rows."""
        return generator.permutation(self.rows)[: self.steps * self.batch].reshape(self.steps, -1)

    def ready(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """This process's slices of a batch (batch, 1, size, size), and where they are hidden (bool)."""
        slices = view(self.feed, rows, WEAK)
        hidden = random_regions(len(rows), slices.shape[-1], self.model.share)
        return slices, parallel.share(hidden).to(slices.device)

    def loss(self, slices: Tensor, hidden: Tensor) -> Tensor:
        """Mean squared error over hidden pixels only."""
        return hidden_error(self.model(slices, hidden).restored, slices, hidden)

    def files(self, rows: np.ndarray) -> list[str]:
        return list(self.feed.files[rows])


@dataclass
class Compare:
    """`count` positive pairs an epoch and as many negative ones, drawn anew each epoch."""

    model: Contrast
    feed: Feed
    rows: np.ndarray  # of the slices that `pairs` numbers from 0 on
    pairs: Pairs
    count: int
    batch: int  # pairs

    def __post_init__(self) -> None:
        # With `ntxent` the negatives are the other rows of the batch, so that only positive pairs are drawn.
        self.drawn = 2 * self.count if self.model.objective == "margin" else self.count
        self.batch = parallel.shared_batch(self.batch, self.drawn)

    @property
    def steps(self) -> int:
        return self.drawn // self.batch

    def plan(self, generator: Generator) -> np.ndarray:
        """(steps, batch, 3): numbers of the first and second slice of a pair, and 1 where it is a positive one."""
        pairs = np.insert(self.pairs.positive(self.count, generator), 2, 1, axis=1)
        if self.drawn > self.count:
            negative = np.insert(self.pairs.negative(self.count, generator), 2, 0, axis=1)
            pairs = generator.permutation(np.concatenate([pairs, negative]))
        return pairs[: self.steps * self.batch].reshape(self.steps, self.batch, 3)

    def ready(self, pairs: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """This process's first and second slices, whether a pair is positive (bool), and the group of *every* pair."""
        first, second, positive = pairs.T
        groups = torch.from_numpy(self.pairs.groups[first]).to(self.feed.device)
        equal = torch.from_numpy(parallel.share(positive) == 1).to(self.feed.device)
        return view(self.feed, self.rows[first], STRONG), view(self.feed, self.rows[second], STRONG), equal, groups

    def loss(self, first: Tensor, second: Tensor, equal: Tensor, groups: Tensor) -> Tensor:
        """Of all pairs of the batch; with `ntxent` negatives come from all processes."""
        first, second = self.model(first, second)
        if self.model.objective == "margin":
            return margin_loss(first, second, equal)
        return nt_xent(parallel.gather(first), parallel.gather(second), groups, self.model.temperature)

    def files(self, pairs: np.ndarray) -> list[str]:
        return list(self.feed.files[self.rows[pairs[:, :2].ravel()]])


FEWEST = 12  # slices in a batch, where so many are asked for: of fewer, batch statistics say too little


@dataclass
class Classify:
    """Every labelled slice at least once an epoch, and at least 16 batches: twelve slices come in many guises.

    No batch is larger than the number of slices, or twelve: to show one in two guises at once adds time, little else.
    """

    model: Classifier
    feed: Feed
    rows: np.ndarray
    labels: np.ndarray  # (rows,)
    batch: int

    def __post_init__(self) -> None:
        self.batch = parallel.shared_batch(self.batch, max(FEWEST, len(self.rows)))
        self.steps = max(16, -(-len(self.rows) // self.batch))
        self.weight = 1 / np.bincount(self.labels).clip(1)  # every class counts the same

    def plan(self, generator: Generator) -> np.ndarray:
        """(steps, batch) places in `rows`."""
        rounds = -(-self.steps * self.batch // len(self.rows))
        order = np.concatenate([generator.permutation(len(self.rows)) for _ in range(rounds)])
        return order[: self.steps * self.batch].reshape(self.steps, -1)

    def ready(self, places: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """This process's slices, their labels, and their weights, whose mean over the whole batch is 1."""
        labels = self.labels[places]
        weight = self.weight[labels] / self.weight[labels].mean()
        own, heavy = (torch.from_numpy(parallel.share(values)).to(self.feed.device) for values in (labels, weight))
        return view(self.feed, self.rows[places], STRONG), own, heavy

    def loss(self, slices: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
        """Weighted cross entropy with smoothed labels (Szegedy et al. 2016, arXiv:1512.00567)."""
        losses = F.cross_entropy(self.model(slices).float(), labels, label_smoothing=0.1, reduction="none")
        return (losses * weight).mean()

    def files(self, places: np.ndarray) -> list[str]:
        return list(self.feed.files[self.rows[places]])


def view(feed: Feed, rows: np.ndarray, augmentation: Augmentation) -> Tensor:
    """This process's slices of a batch, changed at random."""
    chance = draw(len(rows))
    return augmentation(feed(parallel.share(rows)), parallel.share(chance))
