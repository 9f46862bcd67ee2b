"""The one loop behind both ways of pretraining and fine-tuning."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sslbt.errors import UserError
from sslbt.training import checkpoint

Metrics = dict[str, float]


class Task(Protocol):
    """What is trained: a module, the batches of one epoch, and the loss of a batch."""

    @property
    def model(self) -> nn.Module: ...

    def batches(self) -> Iterator[Any]:
        """The batches of one epoch; all chance comes from torch's and the loop's seeding."""
        ...

    def loss(self, batch: Any) -> Tensor: ...


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: AdamW, a tenth of the steps to warm up, then a cosine to zero."""

    epochs: int
    steps_per_epoch: int
    learning_rate: float
    weight_decay: float = 0.05
    seed: int = 0


Watcher = Callable[[int, nn.Module], Metrics]
Report = Callable[[int, Metrics], None]


def train(task: Task, schedule: Schedule, unfinished: Path, watch: list[Watcher], report: Report) -> list[Metrics]:
    """Train `task.model` and return the metrics of every epoch, those `watch` measures among them.

    After each epoch weights, optimiser and metrics are saved in `unfinished`; the same call continues from there, and
    removes the file when done. All chance of an epoch follows from (seed, epoch), so on one machine a continued
    training equals an uninterrupted one.

    Raises:
        UserError: the loss is no longer finite; the file of the last good epoch stays.
    """
    # 1. the model on its device, its parameters in one optimiser
    device = best_device()
    model = task.model.to(device)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), schedule.learning_rate, weight_decay=schedule.weight_decay)
    history = _continue(unfinished, model, optimizer)
    for epoch, metrics in enumerate(history):
        report(epoch, metrics)

    for epoch in range(len(history), schedule.epochs):
        torch.manual_seed(schedule.seed * 100_003 + epoch)
        model.train()
        began, total = time.perf_counter(), torch.zeros(2, device=device)

        # 2. one pass: rate, loss, gradient, step
        for step, batch in enumerate(task.batches()):
            for group in optimizer.param_groups:
                group["lr"] = rate(schedule, epoch * schedule.steps_per_epoch + step)
            with mixed_precision(device):
                loss = task.loss(batch)
            optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            total += torch.stack([loss.detach(), norm])

        # 3. say how it went, and remember it
        mean, steepness = (total / schedule.steps_per_epoch).tolist()
        if not math.isfinite(mean + steepness):
            raise UserError(
                f"the loss is {mean} in epoch {epoch}, its gradient {steepness}; "
                "lower --learning-rate and run the command again"
            )
        metrics = {"train/loss": mean, "train/gradient_norm": steepness}
        metrics["train/learning_rate"] = optimizer.param_groups[0]["lr"]
        metrics["train/seconds"] = time.perf_counter() - began
        model.eval()
        with torch.no_grad():
            for watcher in watch:
                metrics |= watcher(epoch, model)
        history.append(metrics)
        tensors = model.state_dict() | checkpoint.pack_optimizer(optimizer)
        checkpoint.save(unfinished, tensors, {"history": history})
        report(epoch, metrics)

    unfinished.unlink(missing_ok=True)
    model.eval()
    return history


def rate(schedule: Schedule, step: int) -> float:
    """Learning rate at a step: linear warm-up over a tenth of all steps, then half a cosine."""
    steps = schedule.epochs * schedule.steps_per_epoch
    warm = max(1, steps // 10)
    if step < warm:
        return schedule.learning_rate * (step + 1) / warm
    return schedule.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def best_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def mixed_precision(device: torch.device) -> contextlib.AbstractContextManager:
    """bfloat16 where the hardware multiplies it natively: elsewhere it is slower than float32."""
    cpu = torch.cpu.get_capabilities()
    if device.type == "cuda" or cpu.get("avx512_bf16") or cpu.get("amx_bf16"):
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def _continue(unfinished: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Metrics]:
    if not unfinished.exists():
        return []
    try:
        tensors, about = checkpoint.load(unfinished)
    except UserError as error:
        raise UserError(f"{error}; remove it to train from the beginning") from error
    checkpoint.unpack_optimizer(optimizer, tensors)
    model.load_state_dict({name: tensor for name, tensor in tensors.items() if not name.startswith("optimizer.")})
    return about["history"]
