"""The one loop behind both ways of pretraining and fine-tuning."""

import contextlib
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sslbt import parallel
from sslbt.errors import UserError
from sslbt.nn.batchnorm import synchronised
from sslbt.terminal import say
from sslbt.training import checkpoint
from sslbt.training.schedule import Schedule
from sslbt.training.state import BEST, LAST, RATE, Epoch, Metrics, State
from sslbt.training.stopping import Stop

SAVE_EVERY = 60.0  # seconds; and after every epoch
COMPILERS = (os.environ.get("CXX", "c++"), "g++", "clang++")  # of which torch.compile needs one on a CPU


class Task(Protocol):
    """What is trained: a module, the batches of an epoch, and the loss of a batch."""

    @property
    def model(self) -> nn.Module: ...

    def plan(self, generator: np.random.Generator) -> np.ndarray:
        """What the batches of an epoch consist of, (steps, batch, ...)."""
        ...

    def ready(self, batch: np.ndarray) -> tuple[Tensor, ...]:
        """One row of the plan as the network sees it, on its device; chance comes from torch's seeding."""
        ...

    @property
    def loss(self) -> Callable[..., Tensor]:
        """Of what `ready` gave; its mean over processes is the whole batch's."""
        ...

    def files(self, batch: np.ndarray) -> list[str]:
        """Whose pixels these are, for a person to look at."""
        ...


class Report(Protocol):
    """Who is told how it goes."""

    def begin(self, history: list[Epoch], step: int) -> None: ...

    def step(self, epoch: int, step: int, loss: float) -> None: ...

    def epoch(self, epoch: Epoch) -> None: ...

    def end(self) -> None: ...


Watcher = Callable[[int, nn.Module], Metrics]


def train(task: Task, schedule: Schedule, folder: Path, watch: list[Watcher], report: Report) -> State:
    """Train `task.model`, and leave it with its best weights, by the score that `watch` gives, else with its last.

    In `folder` are the last checkpoint, written after every epoch, every minute and when somebody asks to stop, and
    the best one. The same call continues from the last: all chance of a step follows from (seed, epoch, step), so that
    on one machine a continued training equals an uninterrupted one.

    Raises:
        UserError: the loss is no longer finite; the last good checkpoint stays.
        KeyboardInterrupt: somebody asked to stop; the checkpoint is written.
    """
    # 1. the model on its device, its parameters in one optimiser, both as far as they were
    device = best_device()
    model = synchronised(task.model.to(device).to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=schedule.weight_decay, fused=True)
    state = State.resume(folder, model, optimizer, schedule)
    loss_of = prepared(task, device, schedule.compiled)
    look_every = 1 if device.type == "cpu" else 16  # looking at a number makes a GPU wait
    first, saved = parallel.rank() == 0, time.monotonic()

    with Stop() as stop, telling(report, state):
        for number in range(len(state.history), schedule.epochs):
            plan = task.plan(np.random.default_rng((schedule.seed, number)))
            model.train()
            began, recent = time.perf_counter() - state.seconds, []
            for step in range(state.step, len(plan)):
                # 2. one step: batch, rate, loss, gradient
                torch.manual_seed(np.random.SeedSequence((schedule.seed, number, step)).generate_state(1).item())
                batch = task.ready(plan[step])
                for group in optimizer.param_groups:
                    group["lr"] = schedule.rate(number * schedule.steps_per_epoch + step)
                with mixed_precision(device):
                    loss = loss_of(*batch)
                optimizer.zero_grad()
                loss.backward()
                norm = nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimizer.step()

                # 3. now and then: is it finite, does somebody want to stop, is it time to save?
                recent.append(torch.stack([loss.detach(), norm]))
                if len(recent) < look_every and step + 1 < len(plan):
                    continue
                losses, norms, stopping = _look(recent, stop)
                if not all(map(math.isfinite, losses + norms)):
                    raise _not_finite(task, plan, number, step, losses, norms, folder)
                recent.clear()
                state.step = step + 1
                state.loss, state.gradient = state.loss + sum(losses), state.gradient + sum(norms)
                state.seconds = time.perf_counter() - began
                if first and (stopping or time.monotonic() - saved > SAVE_EVERY):
                    state.save(folder, model, optimizer, schedule)
                    saved = time.monotonic()
                if stopping:
                    raise KeyboardInterrupt
                report.step(number, state.step, losses[-1])

            # 4. an epoch is done: measure, remember, tell
            metrics = {
                "train/loss": state.loss / len(plan),
                "train/gradient_norm": state.gradient / len(plan),
                RATE: schedule.rate(number * schedule.steps_per_epoch + len(plan) - 1),
                "train/seconds": state.seconds,
            }
            if first:
                model.eval()
                with torch.no_grad():
                    for watcher in watch:
                        metrics |= watcher(number, model)
            epoch = state.end_epoch(metrics, time.time())
            if first:
                if state.best == number:
                    checkpoint.save(folder / BEST, model.state_dict(), {"epoch": number})
                state.save(folder, model, optimizer, schedule)
                saved = time.monotonic()
            report.epoch(epoch)
            if parallel.mean(torch.tensor(float(stop.asked))) > 0:  # while it was measured
                raise KeyboardInterrupt

    if first and state.best is not None:
        model.load_state_dict(checkpoint.load(folder / BEST)[0])
    model.eval()
    return state


@contextlib.contextmanager
def telling(report: Report, state: State) -> Iterator[None]:
    """Begin a report and end it, however the training ends."""
    report.begin(state.history, state.step)
    try:
        yield
    finally:
        report.end()


def prepared(task: Task, device: torch.device, compiled: bool) -> nn.Module:
    """The task's loss as a module's forward: there processes join their gradients, and torch compiles."""
    module: nn.Module = _Loss(task)
    if parallel.size() > 1:
        module = DistributedDataParallel(module, forward_sync_buffers=False)
    if compiled and device.type == "cpu" and not any(map(shutil.which, COMPILERS)):
        say("compile=true: no C++ compiler found, training goes on without; install g++ or clang")
    elif compiled:
        module.compile()
    return module


class _Loss(nn.Module):
    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model = task.model
        self.forward = task.loss


def best_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def mixed_precision(device: torch.device) -> contextlib.AbstractContextManager:
    """bfloat16 where the hardware multiplies it natively: elsewhere it is slower than float32."""
    cpu = torch.cpu.get_capabilities()
    if device.type == "cuda" or cpu.get("avx512_bf16") or cpu.get("amx_bf16"):
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def _look(recent: list[Tensor], stop: Stop) -> tuple[list[float], list[float], bool]:
    """Losses and gradient norms of recent steps, means over all processes, and whether one of these is to stop."""
    asked = torch.tensor([[float(stop.asked)] * 2])
    seen = parallel.mean(torch.cat([torch.stack(recent).float().cpu(), asked]))
    losses, norms = seen[:-1].T.tolist()
    return losses, norms, bool(seen[-1, 0] > 0)


def _not_finite(
    task: Task, plan: np.ndarray, epoch: int, step: int, losses: list[float], norms: list[float], folder: Path
) -> UserError:
    """Which step it was, whose pixels it saw, and what there is to go back to."""
    bad = next(i for i, pair in enumerate(zip(losses, norms, strict=True)) if not all(map(math.isfinite, pair)))
    files = task.files(plan[step + 1 - len(losses) + bad])
    listed, last = folder / "not_finite.txt", folder / LAST
    if parallel.rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        listed.write_text("\n".join(files) + "\n")
    return UserError(
        f"the loss is {losses[bad]} in epoch {epoch + 1}, step {step + 2 - len(losses) + bad} of {len(plan)}, its "
        f"gradient {norms[bad]}; the batch showed {', '.join(files[:4])} and others ({listed} names all); the last "
        f"good checkpoint is {last if last.exists() else 'not yet written'}; lower learning_rate and start again"
    )
