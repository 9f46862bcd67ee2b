"""Does the exported file answer as the network it came from?"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from sslbt.errors import UserError
from sslbt.export.onnx import OUTPUTS, Deployed

TOLERANCE = 1e-4  # on probabilities
STRANGE_TOLERANCE = 1e-3  # on strangeness, as a share of it where that is more than 1


@dataclass(frozen=True)
class Parity:
    """How far ONNX Runtime and torch were apart at most, over so many slices."""

    slices: int
    difference: float


@torch.no_grad()
def check(model: Deployed, path: Path, raw: Iterable[np.ndarray]) -> Parity:
    """Compare the file with the module on raw pixels (height, width), one slice at a time.

    Raises:
        UserError: probabilities more than 1e-4 apart, another class, or another strangeness.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    count, worst = 0, 0.0
    for pixels in raw:
        image = pixels.astype(np.float32)[None]
        ours, strange = (own.numpy() for own in model(torch.from_numpy(image)))
        theirs, as_strange = session.run(OUTPUTS, {"image": image})
        count, difference = count + 1, float(np.abs(ours - theirs).max())
        top = np.sort(ours[0])[-2:]
        other_class = ours.argmax() != theirs.argmax() and top[1] - top[0] > TOLERANCE
        stranger = np.abs(strange - as_strange).max() / max(1, np.abs(strange).max())
        # "not <=", so that NaN does not pass
        if not difference <= TOLERANCE or not stranger <= STRANGE_TOLERANCE or other_class:
            raise UserError(
                f"{path.name}: slice {count} differs from torch by {difference:.1e} (strangeness by "
                f"{stranger:.1e}); it is not registered"
            )
        worst = max(worst, difference)
    return Parity(count, worst)
