"""Does the exported file answer as the network it came from?"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from sslbt.errors import UserError
from sslbt.export.onnx import Deployed

TOLERANCE = 1e-4  # on probabilities


@dataclass(frozen=True)
class Parity:
    """How far ONNX Runtime and torch were apart at most, over so many slices."""

    slices: int
    difference: float


@torch.no_grad()
def check(model: Deployed, path: Path, raw: Iterable[np.ndarray]) -> Parity:
    """Compare the file with the module on raw pixels (height, width), one slice at a time.

    Raises:
        UserError: probabilities more than 1e-4 apart, or another class.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    count, worst = 0, 0.0
    for pixels in raw:
        image = pixels.astype(np.float32)[None]
        ours = model(torch.from_numpy(image)).numpy()
        theirs = session.run(["probabilities"], {"image": image})[0]
        count, difference = count + 1, float(np.abs(ours - theirs).max())
        top = np.sort(ours[0])[-2:]
        other_class = ours.argmax() != theirs.argmax() and top[1] - top[0] > TOLERANCE
        if not difference <= TOLERANCE or other_class:  # "not <=", so that NaN does not pass
            raise UserError(f"{path.name}: slice {count} differs from torch by {difference:.1e}; it is not registered")
        worst = max(worst, difference)
    return Parity(count, worst)
