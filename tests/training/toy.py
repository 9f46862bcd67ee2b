"""A training of milliseconds that has whatever chance and state a training can have."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslbt.training import checkpoint
from sslbt.training.loop import Metrics, best_device, train
from sslbt.training.schedule import Schedule
from sslbt.training.state import Epoch, State, weights_of

EPOCHS, STEPS, BATCH = 5, 3, 6
Strike = Callable[[str, int], object]  # told of the place a training has come to, and how often it has been there


def schedule(**other: float | str) -> Schedule:
    return Schedule(**{"epochs": EPOCHS, "steps_per_epoch": STEPS, "learning_rate": 0.01, "seed": 3} | other)


class Toy:
    """Convolutions, batch statistics and dropout on pictures that a plan chooses and chance changes.

    It is its own task, watcher and reporter, and tells `strike` whatever happens to it: there it can be killed.
    """

    def __init__(self, strike: Strike | None = None, scores: Sequence[float] = (), steps: int = STEPS) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            first, second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)
            self.model = nn.Sequential(
                first, nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), second, nn.Flatten(), nn.Linear(4 * 16, 2)
            )
            self.pictures = torch.rand(2 * BATCH * steps, 1, 8, 8)
        self.strike, self.scores, self.steps = strike, scores, steps
        self.been: Counter[str] = Counter()
        self.chance: list[bytes] = []
        self.told: list[tuple] = []

    def at(self, place: str) -> None:
        self.been[place] += 1
        if self.strike:
            self.strike(place, self.been[place])

    # the task
    def plan(self, generator: np.random.Generator) -> np.ndarray:
        return generator.permutation(len(self.pictures))[: self.steps * BATCH].reshape(self.steps, BATCH)

    def ready(self, rows: np.ndarray) -> tuple[Tensor]:
        self.at("ready")
        noise = torch.randn(BATCH, 1, 8, 8)
        self.chance.append(noise.numpy().tobytes())
        return ((self.pictures[torch.from_numpy(rows)] + 0.1 * noise).clamp(0, 1).to(best_device()),)

    def loss(self, batch: Tensor) -> Tensor:
        self.at("loss")
        brighter = (batch.mean(dim=(1, 2, 3)) > 0.5).long()
        return F.cross_entropy(self.model(batch).float(), brighter)

    def files(self, rows: np.ndarray) -> list[str]:
        return [f"{row}.png" for row in rows]

    # the watcher
    def watch(self, epoch: int, model: nn.Module) -> Metrics:
        self.at("watcher")
        assert not model.training
        assert not torch.is_grad_enabled()
        found = {"probe/weight": float(model[6].weight.sum())}
        return found | ({"probe/score": self.scores[epoch]} if self.scores else {})

    # the reporter
    def begin(self, history: list[Epoch], step: int) -> None:
        self.told.append(("begin", len(history)))

    def step(self, epoch: int, step: int, loss: float) -> None:
        self.told.append(("step", epoch, step))
        self.at("step")

    def epoch(self, epoch: Epoch) -> None:
        self.told.append(("epoch", epoch.number))
        self.at("epoch")

    def end(self) -> None:
        self.told.append(("end",))

    def train(self, folder: Path, **other: float | str) -> State:
        return train(self, schedule(**{"steps_per_epoch": self.steps} | other), folder, [self.watch], self)


def left(folder: Path) -> dict[str, Tensor]:
    """All that a training has come to: weights and optimiser of its last checkpoint."""
    return checkpoint.load(folder / "last.safetensors")[0]


def weights(folder: Path) -> dict[str, Tensor]:
    return weights_of(left(folder))


def different(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> set[str]:
    """Names of tensors that are not equal to the last bit."""
    assert ours.keys() == theirs.keys()
    return {name for name in ours if not torch.equal(ours[name].cpu(), theirs[name].cpu())}


def timeless(history: list[Epoch]) -> list[tuple[int, Metrics]]:
    """A history without what a clock says."""
    return [
        (epoch.number, {name: value for name, value in epoch.metrics.items() if name != "train/seconds"})
        for epoch in history
    ]
