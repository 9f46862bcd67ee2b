"""Random changes that leave the diagnosis alone, made for a whole batch at once on its device.

Ranges follow what is usual for MRI: crops of half to all of the picture, small rotations, left-right flips, contrast
(gamma), a bias field and noise. No colour, no upside-down.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """How strong each change is at most; 0 (or 1 for `crop`) switches it off."""

    crop: float = 0.5  # smallest share of the area that stays
    rotation: float = 15.0  # degrees
    flip: float = 0.5  # probability
    gamma: float = 0.5  # the exponent lies between 2**-gamma and 2**gamma
    bias: float = 0.3  # amplitude of the smooth field that multiplies the picture
    noise: float = 0.05  # deviation, where the picture's range is 1

    def __call__(self, slices: Tensor) -> Tensor:
        """(batch, 1, size, size) in [0, 1] to the same; every slice changed in its own way."""
        changed = self._move(slices)
        changed = changed.clamp(0, 1) ** torch.exp2(self._each(slices, -self.gamma, self.gamma))
        changed = changed * self._bias_field(slices)
        changed = changed + torch.randn_like(changed) * self._each(slices, 0, self.noise)
        return changed.clamp(0, 1)

    def _each(self, slices: Tensor, low: float, high: float) -> Tensor:
        return torch.empty(len(slices), 1, 1, 1, device=slices.device).uniform_(low, high)

    def _move(self, slices: Tensor) -> Tensor:
        """Crop, rotate and flip in one resampling. The crop stays inside the picture, its area is uniform."""
        scale = self._each(slices, self.crop, 1).flatten().sqrt()
        angle = torch.deg2rad(self._each(slices, -self.rotation, self.rotation).flatten())
        mirror = torch.where(self._each(slices, 0, 1).flatten() < self.flip, -1.0, 1.0)
        shift = (1 - scale)[:, None] * torch.empty(len(slices), 2, device=slices.device).uniform_(-1, 1)
        cosine, sine = scale * torch.cos(angle), scale * torch.sin(angle)
        rows = [
            torch.stack([cosine * mirror, -sine, shift[:, 0]], 1),
            torch.stack([sine * mirror, cosine, shift[:, 1]], 1),
        ]
        grid = F.affine_grid(torch.stack(rows, 1), list(slices.shape), align_corners=False)
        return F.grid_sample(slices, grid, align_corners=False)

    def _bias_field(self, slices: Tensor) -> Tensor:
        """A smooth field around 1, as an uneven receive coil gives."""
        corners = 1 + self.bias * (2 * torch.rand(len(slices), 1, 3, 3, device=slices.device) - 1)
        return F.interpolate(corners, slices.shape[-2:], mode="bicubic", align_corners=True)


WEAK = Augmentation(crop=0.7, rotation=10, gamma=0.2, bias=0.1, noise=0.02)  # for restoring: the target must stay clear
STRONG = Augmentation()
