"""Raw pixels of any size and scale to what every network here sees."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslbt.data.normalise import CLIPPED, SIDE


class Preprocess(nn.Module):
    """Square, resize and normalise each slice from its own values.

    The exported classifier begins with it; the cache holds what `normalise.normalise` makes, the same without torch
    (a test holds them equal). Multiplying the pixels by a positive number or adding one to them changes nothing.
    """

    def forward(self, image: Tensor) -> Tensor:
        """(batch, height, width) raw pixels to (batch, 1, 256, 256) in [0, 1]."""
        image = image - image.amin(dim=(1, 2), keepdim=True)
        image = F.interpolate(to_square(image)[:, None], (SIDE, SIDE), mode="bilinear", antialias=True)
        flat = image.flatten(1)
        # The k-th largest value is a percentile; topk in the exported graph is several times faster than quantile.
        low = -(-flat).topk(CLIPPED).values[:, -1]
        high = flat.topk(CLIPPED).values[:, -1]
        low, high = low[:, None, None, None], high[:, None, None, None]
        return ((image - low) / (high - low).clamp_min(1e-30)).clamp(0, 1)


def to_square(image: Tensor) -> Tensor:
    """Pad (batch, height, width) with zeros to the longer side, picture in the middle, so that nothing is stretched."""
    height, width = image.shape[1], image.shape[2]
    side = torch.sym_max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return F.pad(image, (left, side - width - left, top, side - height - top))


def resize(slices: Tensor, size: int) -> Tensor:
    """(batch, 1, 256, 256) to (batch, 1, size, size) without aliasing."""
    if size == SIDE:
        return slices
    return F.interpolate(slices, (size, size), mode="bilinear", antialias=True)
