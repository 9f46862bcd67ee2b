"""How long and how fast a training goes."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """AdamW, a tenth of the steps to warm up, then a cosine to zero."""

    epochs: int
    steps_per_epoch: int
    learning_rate: float  # the highest
    weight_decay: float = 0.05
    seed: int = 0
    compiled: bool = False  # by torch.compile

    def rate(self, step: int) -> float:
        """Learning rate at a step: linear warm-up over a tenth of all steps, then half a cosine."""
        steps = self.epochs * self.steps_per_epoch
        warm = max(1, steps // 10)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
