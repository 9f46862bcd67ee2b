"""Where batches of pixels come from: the GPU's memory where the set fits, else a file mapped into memory."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sslbt.data.cache import Cache
from sslbt.data.mapped import Mapped

SHARE_OF_MEMORY = 0.5  # of what is free on the GPU


@dataclass(frozen=True)
class Feed:
    """All slices of a set at the size they are trained at; a batch is a list of row numbers."""

    pixels: Tensor  # (slices, size, size) uint8, on the device or mapped into memory
    files: np.ndarray  # (slices,) names
    device: torch.device  # where batches go
    mapped: Mapped | None = None  # the file, where pixels lie in one

    @classmethod
    def of(cls, cache: Cache, size: int, device: torch.device) -> "Feed":
        """The slices of a cache, resized once."""
        mapped, files = cache.resized(size), cache.table.file.to_numpy(str)
        if device.type == "cuda" and mapped.pixels.numel() < SHARE_OF_MEMORY * torch.cuda.mem_get_info(device)[0]:
            return cls(mapped.pixels.to(device), files, device)
        return cls(mapped.pixels, files, device, mapped)

    def __call__(self, rows: np.ndarray) -> Tensor:
        """(rows, 1, size, size) float32 in [0, 1]."""
        chosen = self.mapped.read(rows) if self.mapped else self.pixels[torch.from_numpy(rows).to(self.pixels.device)]
        return chosen.to(self.device).unsqueeze(1).float().div_(255)
