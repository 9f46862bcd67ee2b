"""What is not a brain MRI: fitting the score that tells, and how much of what kind passes all the same."""

import math

import numpy as np
import pandas as pd
import pydicom
import torch
import torch.nn.functional as F
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont
from pydicom.data import get_testdata_file
from sklearn.datasets import load_sample_images
from torch import Tensor

from sslbt.data.normalise import SIDE
from sslbt.data.preprocess import Preprocess, resize
from sslbt.data.splits import Split, some
from sslbt.evaluation.exposure import another_scan, no_brain
from sslbt.nn.outlier import SIZE, Outlier

STEPS, BATCH, RATE = 500, 64, 2e-3  # fewer steps let more pictures through that are upside down
MOST = 4096  # slices are enough to learn from
PASSING = 0.97  # share of the validation patients' slices that pass; of new patients' at least 95 % are to
LENIENT = -math.log(4)  # a brain MRI with odds of four to one passes, whatever so few patients say
EACH = 100  # pictures of a kind
COLUMNS = ["kind", "pictures", "accepted"]
# A CT of the chest, an MRI of the abdomen, two ultrasound pictures: they come with pydicom.
BODY = ("CT_small.dcm", "examples_overlay.dcm", "examples_rgb_color.dcm", "examples_ybr_color.dcm")


def fit(pixels: np.ndarray, split: Split, seed: int = 0, steps: int = STEPS) -> Outlier:
    """Fit to the training slices among `pixels` (n, 256, 256); the validation patients say where to draw the line."""
    train, validation = (some(split.rows(part), MOST) for part in ("train", "validation"))
    families = split.table.family.to_numpy(str)[validation]
    return fit_outlier(pixels[train], pixels[validation], families, seed, steps)


def fit_outlier(
    slices: np.ndarray, validation: np.ndarray, families: np.ndarray, seed: int = 0, steps: int = STEPS
) -> Outlier:
    """Learn to tell slices from what is no brain MRI, which is made of them (Hendrycks et al. 2019, outlier exposure).

    No label and no other picture is needed. Every batch shows the same heads twice: as another scan would, and turned
    into something else. Takes half a minute to one and a half on one core, however many slices there are.

    Args:
        slices: (n, 256, 256) to learn from, uint8 or in [0, 1].
        validation: (m, 256, 256) of other patients.
        families: (m,) of theirs; a family weighs as one, however many slices it has.
        seed: the same seed gives the same weights on the same machine.
        steps: batches to learn from.
    """
    generator, small = torch.Generator().manual_seed(seed), resize(_tensor(slices), SIZE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        outlier = Outlier().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(outlier.net.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    truth = torch.arange(2).repeat_interleave(BATCH).float()
    for _ in range(steps):
        scans = another_scan(small[torch.randint(len(small), (BATCH,), generator=generator)], generator)
        shown = torch.cat([scans, no_brain(scans, generator)]).contiguous(memory_format=torch.channels_last)
        logits = outlier.net(shown).squeeze(1)
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(logits, truth).backward()
        optimizer.step()
        schedule.step()
    outlier.eval().requires_grad_(False)
    outlier.above.fill_(line(score(outlier, _tensor(validation)), families))
    return outlier


def line(scores: np.ndarray, families: np.ndarray) -> float:
    """Above which score a picture is refused: a share `PASSING` of the slices of an average family passes, or more."""
    _, own, counts = np.unique(families, return_inverse=True, return_counts=True)
    order, weight = np.argsort(scores), 1 / counts[own]
    passing = weight[order].cumsum() / weight.sum()
    return max(float(scores[order][np.searchsorted(passing, PASSING - 1e-9)]), LENIENT)


def acceptance(outlier: Outlier, slices: np.ndarray, seed: int = 0) -> pd.DataFrame:
    """How much of what passes as a brain MRI: these slices first, then what is made of them, drawn or carried along.

    Returns:
        kind, pictures, accepted (share that passes).
    """
    kinds = {"real slices": slices} | strangers(slices, seed)
    return pd.DataFrame([(kind, *accepted(outlier, of_kind)) for kind, of_kind in kinds.items()], columns=COLUMNS)


def accepted(outlier: Outlier, pictures: np.ndarray) -> tuple[int, float]:
    """Number of raw pictures (k, 256, 256), and the share of them that passes."""
    prepared = torch.cat([Preprocess()(part.float()) for part in torch.from_numpy(pictures).split(64)])
    return len(pictures), float((score(outlier, prepared) <= float(outlier.above)).mean())


@torch.no_grad()
def score(outlier: Outlier, slices: Tensor) -> np.ndarray:
    """(n, 1, 256, 256) in [0, 1] to scores (n,)."""
    return torch.cat([outlier(part) for part in slices.split(64)]).numpy()


def strangers(slices: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Raw pictures (k, 256, 256) that are no brain MRI, by kind, most of them other than those that `fit` learns from.

    Args:
        slices: (n, 256, 256) that nothing was learnt from.
        seed: of what is drawn at random.
    """
    rng = np.random.default_rng(seed)
    few = np.asarray(slices[some(np.arange(len(slices)), EACH)])
    return {
        "slices upside down": few[:, ::-1].copy(),
        "slices turned by 180 degrees": few[:, ::-1, ::-1].copy(),
        "slices on their side": np.rot90(few, 1, (1, 2)).copy(),
        "slices as a negative": few.max() - few,
        "photographs": _details([_grey(photograph) for photograph in load_sample_images().images], rng),
        "other parts of the body": _details([_carried(name) for name in BODY], rng),
        "text": np.stack([_text(rng) for _ in range(EACH)]),
        "noise": rng.gamma(2 ** rng.uniform(-3, 3, (EACH, 1, 1)), size=(EACH, SIDE, SIDE)).astype(np.float32),
        "nearly blank": np.stack([_nearly_blank(rng) for _ in range(EACH)]),
    }


def _details(pictures: list[np.ndarray], rng: Generator) -> np.ndarray:
    """Squares of at least half the height, or width if that is less, from pictures in turn, (EACH, 256, 256)."""
    details = []
    for number in range(EACH):
        picture = pictures[number % len(pictures)]
        side = int(min(picture.shape) * rng.uniform(0.5, 1))
        top, left = (int(rng.integers(length - side + 1)) for length in picture.shape)
        detail = Image.fromarray(picture[top : top + side, left : left + side])
        details.append(np.asarray(detail.resize((SIDE, SIDE), Image.Resampling.BILINEAR)))
    return np.stack(details)


def _carried(name: str) -> np.ndarray:
    """A picture that comes with pydicom, (height, width) float32; the first of a film."""
    pixels = pydicom.dcmread(str(get_testdata_file(name, download=False))).pixel_array
    pixels = pixels[0] if pixels.ndim == 4 else pixels
    return pixels.astype(np.float32) if pixels.ndim == 2 else _grey(pixels)


def _grey(picture: np.ndarray) -> np.ndarray:
    """(height, width, 3) uint8 to (height, width) float32."""
    return np.asarray(Image.fromarray(picture).convert("L"), np.float32)


def _text(rng: Generator) -> np.ndarray:
    """Words that mean nothing, black on white or white on black."""
    size, page = int(rng.integers(10, 50)), Image.new("L", (SIDE, SIDE))
    letters = rng.choice(list("etaoinshrdlucmfwypvbgkjqxz      "), (SIDE // size, 2 * SIDE // size))
    font = ImageFont.load_default(size)
    text = "\n".join("".join(line) for line in letters)
    ImageDraw.Draw(page).multiline_text(tuple(rng.integers(0, 60, 2)), text, 255, font)
    return np.asarray(page) if rng.random() < 0.5 else 255 - np.asarray(page)


def _nearly_blank(rng: Generator) -> np.ndarray:
    """One grey, but for a little noise, a faint ramp or a few bright pixels."""
    page = np.full((SIDE, SIDE), 100, np.float32)
    kind = rng.integers(3)
    if kind == 0:
        return page + rng.normal(0, 0.5, page.shape).round().astype(np.float32)
    if kind == 1:
        return page + np.linspace(0, rng.uniform(-9, 9), SIDE, dtype=np.float32)[:, None]
    page[tuple(rng.integers(0, SIDE, (2, int(rng.integers(1, 400)))))] = 255
    return page


def _tensor(slices: np.ndarray) -> Tensor:
    """(n, 256, 256) uint8, or floats in [0, 1], to (n, 1, 256, 256) float32 in [0, 1]."""
    whole = torch.from_numpy(np.array(slices))[:, None]
    return whole.float() if whole.is_floating_point() else whole.float() / 255
