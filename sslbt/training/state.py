"""Where a training stands, as it is saved and found again."""

import math
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from sslbt import parallel
from sslbt.errors import UserError
from sslbt.training import checkpoint
from sslbt.training.optimizer import PREFIX, pack, unpack
from sslbt.training.schedule import Schedule

Metrics = dict[str, float]
LAST, BEST = "last.safetensors", "best.safetensors"
SCORE = "probe/score"  # what the best epoch is best in
RATE = "train/learning_rate"
LOW = 1 / 8  # of the highest rate


@dataclass(frozen=True)
class Epoch:
    """What is known of a finished epoch."""

    number: int  # from 0
    ended: float  # seconds since 1970: the same however often it is told
    metrics: Metrics


@dataclass
class State:
    """How far a training is, beside its weights and its optimiser. Chance follows from seed, epoch and step."""

    history: list[Epoch] = field(default_factory=list)
    step: int = 0  # steps done of the epoch that is under way
    loss: float = 0.0  # their sum
    gradient: float = 0.0
    seconds: float = 0.0

    def save(self, folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, schedule: Schedule) -> None:
        """Replace the last checkpoint."""
        tensors = model.state_dict() | pack(optimizer)
        checkpoint.save(folder / LAST, tensors, asdict(self) | {"schedule": asdict(schedule)})

    @classmethod
    def resume(cls, folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, schedule: Schedule) -> "State":
        """From the last checkpoint, whose weights go into model and optimiser; a new one where there is none.

        Raises:
            UserError: the checkpoint is damaged, or that of another version, network or schedule.
        """
        path = folder / LAST
        content = parallel.from_first(lambda: path.read_bytes() if path.exists() else None)
        if content is None:
            return cls()
        try:
            tensors, about = checkpoint.parse(content, path)
        except UserError as error:
            raise UserError(f"{error}; remove it to train from the beginning") from error
        try:
            if about.pop("schedule") != asdict(schedule):
                raise UserError(
                    f"{path}: belongs to a training of another length, rate or seed; remove it to begin anew"
                )
            state = cls(history=[Epoch(**epoch) for epoch in about.pop("history")], **about)
            unpack(optimizer, tensors)
            model.load_state_dict(weights_of(tensors))
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{path}: left by another version of sslbt or another training; remove it to begin anew"
            ) from error
        return state

    def end_epoch(self, metrics: Metrics, ended: float) -> Epoch:
        """Add an epoch to the history; the next one begins."""
        epoch = Epoch(len(self.history), ended, metrics)
        self.history.append(epoch)
        self.step, self.loss, self.gradient, self.seconds = 0, 0.0, 0.0, 0.0
        return epoch

    @property
    def best(self) -> int | None:
        """Number of the epoch with the highest steady score, the last of equals; None where nothing was scored.

        Where the rate falls, epochs count only once it is low: before, features are on the move, and which of them
        looks best to a few validation patients is luck.
        """
        scored = self._steady
        return max(scored, key=lambda number: (scored[number], number)) if scored else None

    @property
    def best_score(self) -> float:
        """The highest steady score of those that count, not a number where nothing was scored."""
        return max(self._steady.values(), default=math.nan)

    @property
    def _steady(self) -> dict[int, float]:
        scores = {epoch.number: epoch.metrics.get(SCORE, math.nan) for epoch in self.history}
        scores = {number: score for number, score in scores.items() if math.isfinite(score)}
        scored = dict(zip(scores, steady(list(scores.values())), strict=True))
        rates = [epoch.metrics.get(RATE, 1.0) for epoch in self.history]
        low = {number for number, rate in enumerate(rates) if rate <= LOW * max(rates[:number], default=0)}
        return {number: score for number, score in scored.items() if number in low} or scored


def steady(scores: list[float]) -> list[float]:
    """The median of each score and the two before it: a few validation patients make single looks jump."""
    return [statistics.median(scores[max(0, i - 2) : i + 1]) for i in range(len(scores))]


def weights_of(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The model's part of a checkpoint."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(PREFIX)}
