"""Does the exported file answer as the network it came from?"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from sslbt.errors import UserError
from sslbt.export.onnx import EXPLAIN, OUTPUTS, SALIENCY, Deployed

onnxruntime.set_default_logger_severity(3)  # errors only: it warns of `explain`, an input that may be left out

Answers = dict[str, np.ndarray]
TOLERANCE = 1e-4  # on probabilities
FAR_TOLERANCE = 1e-3  # on strangeness and features, as a share of the largest where that is more than 1
MAP_TOLERANCE = 1e-2  # on saliency, a map's mean: where a ReLU gets nearly zero, rounding turns single places on or off
TOGETHER = 1 << 22  # pixels at a time, sixteen slices of the data set
ODD = 8  # slices that are also asked about in other sizes and scales
SCALES = (1e-6, 1e9)


@dataclass(frozen=True)
class Parity:
    """How far ONNX Runtime and torch were apart at most in a probability, over so many slices."""

    slices: int
    difference: float


@torch.no_grad()
def check(model: Deployed, path: Path, raw: Iterable[np.ndarray]) -> Parity:
    """Compare the file with the module on raw pixels (height, width), the first few also changed.

    The file is asked one slice at a time, as it is in service; torch several at once, which takes a third of the time.

    Raises:
        UserError: probabilities more than 1e-4 apart, another class, decision, strangeness, features or saliency.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    count, worst = 0, 0.0

    def torch_says(images: np.ndarray) -> Answers:
        return dict(zip(OUTPUTS, (own.numpy() for own in model(torch.from_numpy(images))), strict=True))

    def compare(ours: Answers, image: np.ndarray) -> float:
        theirs = dict(zip(OUTPUTS, session.run(OUTPUTS, {"image": image, EXPLAIN: np.array(True)}), strict=True))
        if problem := apart(ours, theirs, model.plausible_above, float(model.outlier.above)):
            shape = " x ".join(map(str, image.shape))
            raise UserError(
                f"{path.name}: slice {count} ({shape}) differs from torch in {problem}; it is not registered"
            )
        return float(np.abs(ours["probabilities"] - theirs["probabilities"]).max())

    for images in of_one_shape(raw):
        ours = torch_says(images)
        for row, image in enumerate(images):
            count += 1
            worst = max(worst, compare({name: own[row : row + 1] for name, own in ours.items()}, image[None]))
            for odd in changed(image) if count <= ODD else ():
                worst = max(worst, compare(torch_says(odd), odd))
    return Parity(count, worst)


def of_one_shape(raw: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Pictures that follow one another and have one shape, together, (batch, height, width), a few million pixels."""
    for shape, pictures in groupby(raw, np.shape):
        while batch := list(islice(pictures, max(1, TOGETHER // math.prod(shape)))):
            yield np.stack(batch).astype(np.float32)


def changed(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """The same slice, odd in height, narrow, twice in a batch, very dark and very bright; (batch, height, width)."""
    image = pixels[None]
    yield image[:, : max(17, image.shape[1] // 2 * 2 - 1)]
    yield image[:, :, : max(16, image.shape[2] // 3)]
    yield np.concatenate([image, image[:, ::-1]])
    brightest = float(np.abs(image).max())
    for scale in SCALES:
        if brightest * scale <= np.finfo(np.float32).max:
            yield image * np.float32(scale)


def apart(ours: Answers, theirs: Answers, plausible_above: float, strange_above: float) -> str:
    """In what two answers to the same pixels differ; empty where in nothing."""
    difference = np.abs(ours["probabilities"] - theirs["probabilities"])
    # "not <=", so that NaN does not pass
    if not difference.max() <= TOLERANCE:
        return f"probabilities, by {difference.max():.1e}"
    for name in ("strangeness", "features"):
        far = np.abs(ours[name] - theirs[name]).max() / max(1, np.abs(ours[name]).max())
        if not far <= FAR_TOLERANCE:
            return f"{name}, by {far:.1e}"
    top = np.sort(ours["probabilities"], axis=1)
    tied = top[:, -1] - top[:, -2] <= TOLERANCE
    if (tied | (ours["probabilities"].argmax(axis=1) == theirs["probabilities"].argmax(axis=1))).all():
        near = np.abs(ours["probabilities"] - plausible_above).min(axis=1) <= TOLERANCE
        near |= np.abs(ours["strangeness"] - strange_above) <= FAR_TOLERANCE * max(1, strange_above)
        if not (near | (ours["abstain"] == theirs["abstain"])).all():
            return "whether to abstain"
        far = np.abs(ours[SALIENCY] - theirs[SALIENCY]).mean(axis=(1, 2))
        worst = np.where(tied, 0, far).max()  # tied, the maps may be of two classes
        return "" if worst <= MAP_TOLERANCE else f"saliency, by {worst:.1e} in the mean of a map"
    return "the class"
