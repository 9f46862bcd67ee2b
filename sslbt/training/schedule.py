"""How long and how fast a training goes."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """How often and how far AdamW steps (Loshchilov & Hutter 2019, arXiv:1711.05101), and what else decides a training.

    A checkpoint holds it, and is continued by an equal one only.
    """

    epochs: int
    steps_per_epoch: int
    learning_rate: float  # the highest
    shape: Literal["cosine", "constant"] = "cosine"  # see `rate`
    weight_decay: float = 0.05
    seed: int = 0
    compiled: bool = False  # by torch.compile

    def rate(self, step: int) -> float:
        """Learning rate at a step: linear warm-up over a tenth of all steps, then half a cosine; or the same always."""
        if self.shape == "constant":
            return self.learning_rate
        steps = self.epochs * self.steps_per_epoch
        warm = max(1, steps // 10)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
