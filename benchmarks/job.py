"""The job that every way of benchmarks/training.py does: contrastive pretraining, two views of every slice."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sslbt.config import PretrainContrastive
from sslbt.data.cache import Cache, prepare
from sslbt.data.splits import Split, make_split
from sslbt.nn.encoder import Encoder
from sslbt.pretext.pairs import Contrast, Pairs
from sslbt.training.feed import Feed
from sslbt.training.loop import best_device, mixed_precision
from sslbt.training.tasks import Compare


@dataclass(frozen=True)
class Job:
    """What to train on, and how: `cfg.epochs` rounds of `cfg.num_pairs / cfg.batch` steps."""

    cfg: PretrainContrastive
    cache: Cache
    split: Split
    feed: Feed

    @classmethod
    def of(cls, cfg: PretrainContrastive) -> "Job":
        """Slices read and resized, before anything is measured."""
        cache = prepare(cfg.source)
        split = make_split(cache.table, cfg.split, cache.classes)
        return cls(cfg, cache, split, Feed.of(cache, cfg.size, best_device()))

    def task(self) -> Compare:
        """A net of its own, and what it is trained on."""
        torch.manual_seed(self.cfg.seed)
        rows = self.split.rows("train")
        pairs = Pairs(self.split.table.iloc[rows].reset_index(drop=True), self.cfg.pairs)
        model = Contrast(Encoder(self.cfg.width), self.cfg.loss, self.cfg.temperature)
        return Compare(model, self.feed, rows, pairs, self.cfg.num_pairs, self.cfg.batch)


class Step:
    """What no training can do without: loss, gradient, AdamW, in the loop's precision and memory format."""

    def __init__(self, task: Compare, learning_rate: float) -> None:
        self.device = best_device()
        self.loss = task.loss
        self.model = task.model.to(self.device).to(memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), learning_rate, weight_decay=0.05, fused=True)

    def __call__(self, first: Tensor, second: Tensor, equal: Tensor, groups: Tensor) -> Tensor:
        with mixed_precision(self.device):
            loss = self.loss(first, second, equal, groups)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        return loss.detach()


class Bare:
    """(a) The net on tensors that are there already."""

    READY = 8  # batches, in turns: more than a cache holds

    def __init__(self, job: Job) -> None:
        task = job.task()
        self.step, self.steps = Step(task, job.cfg.learning_rate), task.steps
        plan = task.plan(np.random.default_rng(0))
        self.batches = [task.ready(batch) for batch in plan[: self.READY]]

    def __call__(self) -> None:
        for number in range(self.steps):
            self.step(*self.batches[number % len(self.batches)])


def clock() -> float:
    """Seconds, once the GPU has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
