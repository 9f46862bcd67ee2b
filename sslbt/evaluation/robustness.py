"""How accuracy falls as pictures get worse, one kind of change at a time."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from sslbt.data.preprocess import Preprocess, resize
from sslbt.data.splits import some
from sslbt.evaluation.intervals import interval
from sslbt.evaluation.metrics import Predictions, bootstrap, headline

MOST = 200  # slices asked: it is patients that make an interval narrow
BATCH = 64
Make = Callable[[Tensor, float, torch.Generator], Tensor]


@dataclass(frozen=True)
class Change:
    """One way a picture gets worse."""

    unit: str  # what its strengths mean
    strengths: tuple[float, ...]  # 0 is the picture as it is
    make: Make  # of one slice (1, 1, 256, 256), a strength and what decides by chance


def noise(slices: Tensor, sigma: float, chance: torch.Generator) -> Tensor:
    """The magnitude of a signal with noise in both its parts (Gudbjartsson & Patz 1995), as a scanner gives it."""
    real, imaginary = sigma * torch.randn(2, *slices.shape, generator=chance)
    return torch.hypot(slices + real, imaginary)


def blur(slices: Tensor, sigma: float, _: torch.Generator) -> Tensor:
    """A Gaussian of that deviation in pixels."""
    reach = round(4 * sigma)
    kernel = torch.exp(-torch.arange(-reach, reach + 1).square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    across = F.conv2d(F.pad(slices, (reach, reach, reach, reach), mode="replicate"), kernel.view(1, 1, 1, -1))
    return F.conv2d(across, kernel.view(1, 1, -1, 1))


def bias_field(slices: Tensor, amplitude: float, chance: torch.Generator) -> Tensor:
    """Times a smooth field that reaches 1 - amplitude and 1 + amplitude, as an uneven receive coil gives."""
    field = F.interpolate(
        torch.rand(1, 1, 3, 3, generator=chance), slices.shape[-2:], mode="bicubic", align_corners=True
    )
    low, high = field.amin(), field.amax()
    return slices * (1 + amplitude * (2 * (field - low) / (high - low) - 1))


def contrast(slices: Tensor, doublings: float, _: torch.Generator) -> Tensor:
    """To the power of 2 ** doublings: above 0 greys get darker, below 0 brighter; black and white stay."""
    return slices.clamp(0, 1) ** 2**doublings


def resolution(slices: Tensor, halvings: float, _: torch.Generator) -> Tensor:
    """Scanned with pixels 2 ** halvings times as large, and drawn at the same size."""
    small = resize(slices, round(slices.shape[-1] / 2**halvings))
    return F.interpolate(small, slices.shape[-2:], mode="bilinear", align_corners=False)


def rotation(slices: Tensor, degrees: float, chance: torch.Generator) -> Tensor:
    """Turned about the middle, left or right by chance; black comes in at the corners."""
    angle = np.deg2rad(degrees) * (1 if torch.rand(1, generator=chance) < 0.5 else -1)
    turn = torch.tensor([[[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]]], dtype=slices.dtype)
    return F.grid_sample(slices, F.affine_grid(turn, list(slices.shape), align_corners=False), align_corners=False)


CHANGES = {
    "noise": Change("deviation as a share of the picture's range", (0, 0.02, 0.05, 0.1, 0.2), noise),
    "blur": Change("deviation in pixels of 256", (0, 1, 2, 3, 5), blur),
    "bias field": Change("amplitude: at 0.5 the field runs from 0.5 to 1.5", (0, 0.2, 0.4, 0.6, 0.8), bias_field),
    "contrast": Change("doublings of the exponent of the greys (gamma)", (-1, -0.5, 0, 0.5, 1), contrast),
    "resolution": Change("halvings of the 256 pixels a side", (0, 1, 2, 3, 4), resolution),
    "rotation": Change("degrees, left or right", (0, 5, 10, 20, 30), rotation),
}


def changed(slices: Tensor, change: str, strength: float, seed: int = 0) -> Tensor:
    """Slices (n, 1, 256, 256) with one of `CHANGES`, normalised anew as a file that looks so would be.

    The change is made at the size pictures have before a network's own, so that strengths mean the same for all
    networks. Chance follows from the seed and the slice's own pixels, not from its place among the others.
    """
    if strength == 0:
        return slices
    made = []
    for one in slices.split(1):
        chance = torch.Generator().manual_seed(zlib.crc32(one.numpy().tobytes(), seed))
        made.append(CHANGES[change].make(one, strength, chance))
    return Preprocess()(torch.cat(made)[:, 0])


def curve(
    predict: Callable[[Tensor], np.ndarray], slices: Tensor, labels: np.ndarray, families: np.ndarray, files: np.ndarray
) -> pd.DataFrame:
    """Balanced accuracy by change and strength, with 95 % intervals over patients.

    Args:
        predict: slices (n, 1, 256, 256) to probabilities (n, classes).
        slices: of the test, (n, 1, 256, 256); at most `MOST` of them are asked, evenly taken.
        labels: (n,), and so `families` and `files`.

    Returns:
        change, strength, balanced_accuracy, balanced_accuracy_ci_low, balanced_accuracy_ci_high; by change, then by
        strength, 0 among them.
    """
    chosen = some(np.arange(len(slices)), MOST)

    def ask(change: str, strength: float) -> tuple[float, float, float]:
        parts = [slices[rows] for rows in torch.from_numpy(chosen).split(BATCH)]
        answers = np.concatenate([predict(changed(part, change, strength)) for part in parts])
        return _balanced(Predictions(labels[chosen], answers, families[chosen], files[chosen]))

    unchanged = ask("", 0)
    rows = [
        (name, strength, *(ask(name, strength) if strength else unchanged))
        for name, change in CHANGES.items()
        for strength in change.strengths
    ]
    names = ["balanced_accuracy", "balanced_accuracy_ci_low", "balanced_accuracy_ci_high"]
    return pd.DataFrame(rows, columns=["change", "strength", *names])


def _balanced(answers: Predictions) -> tuple[float, float, float]:
    found = headline(answers)["balanced_accuracy"]
    return found, *interval(bootstrap(answers)["balanced_accuracy"], found)
