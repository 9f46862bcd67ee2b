"""What processes that share a batch come to, for a test to compare: `shared.py FOLDER`, alone or under torchrun."""

import contextlib
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from sslbt import parallel
from sslbt.errors import UserError
from sslbt.nn.batchnorm import synchronised
from sslbt.nn.encoder import Encoder
from sslbt.nn.heads import Classifier
from sslbt.pretext.masking import Restoration
from sslbt.pretext.pairs import Contrast, Pairs
from sslbt.training import checkpoint, loop
from sslbt.training.feed import Feed
from sslbt.training.loop import Task, train
from sslbt.training.schedule import Schedule
from sslbt.training.state import Epoch
from sslbt.training.tasks import Classify, Compare, Restore

BATCH, STEPS = 8, 3
NORMS = {
    "1d": (nn.BatchNorm1d, (BATCH, 6)),
    "2d": (nn.BatchNorm2d, (BATCH, 3, 5, 4)),
    "not_affine": (lambda channels: nn.BatchNorm1d(channels, affine=False), (BATCH, 6)),
    "slow": (lambda channels: nn.BatchNorm2d(channels, momentum=0.01, eps=0.1), (BATCH, 3, 5, 4)),
}
TASKS = ("restore", "ntxent", "margin", "classify")


def seeded(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def normalised(norm: nn.Module, whole: Tensor) -> dict[str, Tensor]:
    """Two steps of batch normalisation: output, running statistics and gradients, of this process's share."""
    for step in range(2):
        own = parallel.share(50 + (1 + step) * whole).requires_grad_()  # a mean that is large beside the deviation
        norm.zero_grad()
        out = norm(own)
        (out * parallel.share(seeded(whole.shape, 1))).sum().backward()
    gradients = {f"{name}.gradient": weight.grad for name, weight in norm.named_parameters()}
    return {"out": out, "in.gradient": own.grad} | gradients | dict(norm.named_buffers())


class Heard:
    """The losses of a training; asks this process to stop after one of its steps."""

    def __init__(self, stop_after: int = 0) -> None:
        self.losses: list[float] = []
        self.stop_after = stop_after

    def begin(self, history: list[Epoch], step: int) -> None: ...

    def step(self, epoch: int, step: int, loss: float) -> None:
        self.losses.append(loss)
        if len(self.losses) == self.stop_after:
            signal.raise_signal(signal.SIGTERM)

    def epoch(self, epoch: Epoch) -> None: ...

    def end(self) -> None: ...


def task(name: str) -> Task:
    torch.manual_seed(0)
    pixels = torch.randint(256, (24, 32, 32), dtype=torch.uint8)
    feed = Feed(pixels, np.array([f"{row}.mat" for row in range(24)]), torch.device("cpu"))
    rows = np.arange(24)
    if name == "restore":
        return Restore(Restoration(Encoder(8), 0.1, 0.4), feed, rows, BATCH)
    if name == "classify":
        classify = Classify(Classifier(Encoder(8), 3, dropout=0.3), feed, rows, rows % 7 % 3, BATCH)
        classify.steps = STEPS
        return classify
    table = pd.DataFrame({"patient": rows // 4, "family": rows // 4, "file": rows, "label": 0})
    count = STEPS * BATCH // (2 if name == "margin" else 1)
    return Compare(Contrast(Encoder(8), name, 0.2), feed, rows, Pairs(table, "patient"), count, BATCH)


def trained(name: str, folder: Path, stop_after: int = 0, epochs: int = 1) -> tuple[dict[str, Tensor], Heard]:
    own, heard = task(name), Heard(stop_after)
    with contextlib.suppress(KeyboardInterrupt):
        train(own, Schedule(epochs, STEPS, 0.01), folder, [], heard)
    return {key: tensor.clone() for key, tensor in own.model.state_dict().items()}, heard


def refusal() -> str:
    try:
        parallel.shared_batch(7, 100)
    except UserError as error:
        return str(error)
    return ""


def everything(folder: Path) -> None:
    rank, found, about = parallel.rank(), {}, {"refusal": refusal(), "rank": parallel.rank(), "size": parallel.size()}

    whole = seeded((BATCH, 2), 0)
    own = parallel.share(whole).requires_grad_()
    together = parallel.gather(own)
    (together * seeded((BATCH, 2), 1)).square().sum().backward()
    found |= {"share": own.detach().clone(), "gather": together, "gather.gradient": own.grad}
    found["mean"] = parallel.mean(torch.tensor([rank + 1.0, 10.0]))
    about["first"] = str(parallel.from_first(lambda: b"of %d" % rank))
    about["nothing"] = parallel.from_first(lambda: None)

    for name, (make, shape) in NORMS.items():
        norm = synchronised(nn.Sequential(make(shape[1]), nn.Linear(1, 1)))[0]
        found |= {f"{name}/{key}": tensor for key, tensor in normalised(norm, seeded(shape, 0)).items()}
        about[name] = type(norm).__name__

    # Doubles, whose rounding AdamW can't blow up to be seen: its first step is the mere sign of a gradient.
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    loop.mixed_precision = lambda device: contextlib.nullcontext()
    for name in TASKS:
        weights, heard = trained(name, folder / name)
        found |= {f"{name}/{key}": tensor for key, tensor in weights.items()}
        about[f"{name} losses"] = heard.losses

    # Asked of one process, all stop; then the last of them finds no checkpoint on its machine.
    own_folder = folder / "stopped" if rank == 0 else folder / "elsewhere"
    last = rank == parallel.size() - 1
    _, heard = trained("ntxent", own_folder, stop_after=1 if last else 0, epochs=2)
    about["stopped after"] = len(heard.losses)
    about["left"] = sorted(path.name for path in own_folder.glob("*"))
    weights, heard = trained("ntxent", own_folder, epochs=2)
    about["continued for"] = len(heard.losses)
    found |= {f"continued/{key}": tensor for key, tensor in weights.items()}
    checkpoint.save(folder / f"rank-{rank}.safetensors", found, about)


if __name__ == "__main__":
    with parallel.together() if "RANK" in os.environ else contextlib.nullcontext():
        everything(Path(sys.argv[1]))
