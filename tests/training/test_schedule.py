"""A rate that stays, and AdamW without weight decay as the Adam it then is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sslbt.tracking.telling import Silence
from sslbt.training.loop import best_device, train
from sslbt.training.schedule import Schedule

EPOCHS, STEPS = 3, 4


class Line:
    """A line that should go through points; nothing in it is left to chance."""

    def __init__(self) -> None:
        self.model = nn.Linear(3, 1)
        with torch.no_grad():
            self.model.weight.copy_(torch.tensor([[0.3, -0.2, 0.1]]))
            self.model.bias.fill_(0.5)
        self.points = torch.linspace(-1, 1, 3 * STEPS).view(STEPS, 3) ** 3
        self.heights = torch.linspace(0, 1, STEPS)

    def plan(self, generator: np.random.Generator) -> np.ndarray:
        return np.arange(STEPS)[:, None]

    def ready(self, batch: np.ndarray) -> tuple[Tensor, Tensor]:
        rows = torch.from_numpy(batch)
        return self.points[rows].to(best_device()), self.heights[rows].to(best_device())

    def loss(self, points: Tensor, heights: Tensor) -> Tensor:
        # In float32 wherever the loop multiplies in bfloat16.
        weight, bias = self.model.weight[0], self.model.bias
        return ((points * weight).sum(dim=1) + bias - heights).square().mean()

    def files(self, batch: np.ndarray) -> list[str]:
        return [str(row) for row in batch]


def test_a_constant_rate_is_the_same_from_the_first_step_to_the_last() -> None:
    plan = Schedule(epochs=20, steps_per_epoch=5, learning_rate=0.4, shape="constant")
    assert {plan.rate(step) for step in range(100)} == {0.4}


@pytest.mark.parametrize(("weight_decay", "same"), [(0.0, True), (0.5, False)])
def test_a_constant_rate_without_weight_decay_is_adam(tmp_path: Path, weight_decay: float, same: bool) -> None:
    task = Line()
    train(task, Schedule(EPOCHS, STEPS, 0.01, "constant", weight_decay), tmp_path, [], Silence())

    theirs = Line()
    theirs.model.to(best_device())
    adam = torch.optim.Adam(theirs.model.parameters(), lr=0.01)
    for step in range(EPOCHS * STEPS):
        adam.zero_grad()
        theirs.loss(*theirs.ready(np.array([step % STEPS]))).backward()
        adam.step()

    weights = [torch.cat([one.weight.ravel(), one.bias]).detach() for one in (task.model, theirs.model)]
    assert torch.allclose(*weights, atol=1e-6) == same
