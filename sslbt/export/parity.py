"""Does the exported file answer as the network it came from?"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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
ODD = 8  # slices that are also asked about in other sizes and scales
SCALES = (1e-6, 1e9)


@dataclass(frozen=True)
class Parity:
    """How far ONNX Runtime and torch were apart at most in a probability, over so many slices."""

    slices: int
    difference: float


@torch.no_grad()
def check(model: Deployed, path: Path, raw: Iterable[np.ndarray]) -> Parity:
    """Compare the file with the module on raw pixels (height, width), one slice at a time, the first few also changed.

    Raises:
        UserError: probabilities more than 1e-4 apart, another class, decision, strangeness, features or saliency.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    count, worst = 0, 0.0
    for pixels in raw:
        count += 1
        for image in [pixels.astype(np.float32)[None], *(changed(pixels) if count <= ODD else ())]:
            ours = dict(zip(OUTPUTS, (own.numpy() for own in model(torch.from_numpy(image))), strict=True))
            asked = {"image": image, EXPLAIN: np.array(True)}
            theirs = dict(zip(OUTPUTS, session.run(OUTPUTS, asked), strict=True))
            if problem := apart(ours, theirs, model.plausible_above, float(model.outlier.above)):
                shape = " x ".join(map(str, image.shape))
                raise UserError(
                    f"{path.name}: slice {count} ({shape}) differs from torch in {problem}; it is not registered"
                )
            worst = max(worst, float(np.abs(ours["probabilities"] - theirs["probabilities"]).max()))
    return Parity(count, worst)


def changed(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """The same slice, odd in height, narrow, twice in a batch, very dark and very bright; (batch, height, width)."""
    image = pixels.astype(np.float32)[None]
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
