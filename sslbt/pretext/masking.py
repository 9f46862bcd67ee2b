"""The encoder way: hide a random region of random size, restore it (Pathak et al. 2016, arXiv:1604.07379)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sslbt.nn.decoder import Decoder
from sslbt.nn.encoder import Encoder


@dataclass(frozen=True)
class Restored:
    """What went in and what came out, each (batch, 1, size, size)."""

    masked: Tensor
    hidden: Tensor  # bool, true where the picture was hidden
    restored: Tensor


class Restoration(nn.Module):
    """Encoder and decoder that fill in what was hidden.

    Args:
        encoder: the network to pretrain.
        mask_min, mask_max: the hidden region's share of the picture is drawn from this range.
    """

    def __init__(self, encoder: Encoder, mask_min: float, mask_max: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = Decoder(encoder.width)
        self.share = (mask_min, mask_max)

    def forward(self, slices: Tensor, hidden: Tensor) -> Restored:
        """Slices (batch, 1, size, size) in [0, 1] with what is `hidden` (bool, the same shape) replaced, and restored.

        It is replaced by the mean of the whole slice, and so by something about what is hidden too: how bright it is.
        """
        mean = slices.mean(dim=(2, 3), keepdim=True)
        masked = torch.where(hidden, mean, slices)
        return Restored(masked, hidden, self.decoder(self.encoder(masked)))


def hidden_error(restored: Tensor, slices: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error over the hidden pixels of each slice, averaged over slices; all (batch, 1, size, size)."""
    squared = (restored - slices).square() * hidden
    return (squared.sum(dim=(1, 2, 3)) / hidden.sum(dim=(1, 2, 3))).mean()


def random_regions(count: int, size: int, share: tuple[float, float]) -> Tensor:
    """One rectangle a picture, (count, 1, size, size) bool, true inside.

    Its area is a uniform share of the picture, its height to width ratio between 1:2 and 2:1 (log-uniform) or as near
    to that as fits, its place uniform among those where it fits whole.
    """
    area = torch.empty(count).uniform_(*share) * size**2
    ratio = torch.exp2(torch.empty(count).uniform_(-1, 1))
    height = (area * ratio).sqrt().clamp_min(area / size).clamp_max(size).round().clamp_min(1)
    width = (area / height).round().clamp(1, size)
    top = (torch.rand(count) * (size - height + 1)).floor()
    left = (torch.rand(count) * (size - width + 1)).floor()
    return (_between(top, height, size)[:, :, None] & _between(left, width, size)[:, None, :])[:, None]


def _between(start: Tensor, length: Tensor, size: int) -> Tensor:
    position = torch.arange(size)
    return (position >= start[:, None]) & (position < (start + length)[:, None])
