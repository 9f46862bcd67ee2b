"""Random changes that leave the diagnosis alone, made for a whole batch at once on its device.

Ranges follow what is usual for MRI: crops of half to all of the picture, small rotations, left-right flips, contrast
(gamma), a bias field and noise. No colour, no upside-down.
"""

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

CHANCES = 17  # uniform numbers that decide what happens to a slice
NOISE = 1 << 20


@dataclass(frozen=True)
class Augmentation:
    """How strong each change is at most; 0 (or 1 for `crop`) switches it off."""

    crop: float = 0.5  # smallest share of the area that stays
    rotation: float = 15.0  # degrees
    flip: float = 0.5  # probability
    gamma: float = 0.5  # the exponent lies between 2**-gamma and 2**gamma
    bias: float = 0.3  # amplitude of the smooth field that multiplies the picture
    noise: float = 0.05  # deviation, where the picture's range is 1

    def __call__(self, slices: Tensor, chance: Tensor) -> Tensor:
        """Change every slice in its own way; nothing is random but `chance`.

        Args:
            slices: (batch, 1, size, size) in [0, 1].
            chance: (batch, CHANCES), uniform in [0, 1); see `draw`.
        """
        chance = chance.to(slices.device)
        scale, angle, flip, gamma, level, place = chance[:, :6].unbind(1)
        changed = self._move(slices, scale, angle, flip, chance[:, 6:8])
        changed = changed.clamp_(0, 1).pow_(_each(torch.exp2(_between(gamma, -self.gamma, self.gamma))))
        corners = 1 + self.bias * _between(chance[:, 8:], -1, 1).view(-1, 1, 3, 3)
        # A smooth field around 1, as an uneven receive coil gives.
        changed = changed.mul_(F.interpolate(corners, slices.shape[-2:], mode="bicubic", align_corners=True))
        return changed.addcmul_(_noise(slices, place), _each(level * self.noise)).clamp_(0, 1)

    def _move(self, slices: Tensor, scale: Tensor, angle: Tensor, flip: Tensor, shift: Tensor) -> Tensor:
        """Crop, rotate and flip in one resampling. The crop stays inside the picture, its area is uniform."""
        scale = _between(scale, self.crop, 1).sqrt()
        angle = torch.deg2rad(_between(angle, -self.rotation, self.rotation))
        mirror = torch.where(flip < self.flip, -1.0, 1.0)
        shift = (1 - scale)[:, None] * _between(shift, -1, 1)
        cosine, sine = scale * torch.cos(angle), scale * torch.sin(angle)
        rows = [
            torch.stack([cosine * mirror, -sine, shift[:, 0]], 1),
            torch.stack([sine * mirror, cosine, shift[:, 1]], 1),
        ]
        grid = F.affine_grid(torch.stack(rows, 1), list(slices.shape), align_corners=False)
        return F.grid_sample(slices, grid, align_corners=False)


def draw(count: int) -> Tensor:
    """What an augmentation of so many slices leaves to chance, on the CPU: the same whatever the device."""
    return torch.rand(count, CHANCES)


def _between(chance: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * chance


def _each(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _noise(slices: Tensor, place: Tensor) -> Tensor:
    """A stretch of one fixed row of normal numbers for each slice.

    So noise follows from a slice's own chance, whichever process and device it is on, and costs a copy.
    """
    length = slices[0].numel()
    row = _normal_row(slices.device)
    starts = (place * (NOISE - length)).long()
    return row.as_strided((NOISE - length, length), (1, 1))[starts].view_as(slices)


@cache
def _normal_row(device: torch.device) -> Tensor:
    return torch.randn(NOISE, generator=torch.Generator().manual_seed(0)).to(device)


WEAK = Augmentation(crop=0.7, rotation=10, gamma=0.2, bias=0.1, noise=0.02)  # for restoring: the target must stay clear
STRONG = Augmentation()
