"""Equally large pictures in one file that need not fit into memory."""

import math
import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Mapped:
    """A file mapped into memory: what is asked for is read, and kept as long as there is room."""

    pixels: Tensor  # (pictures, height, width) uint8; changes to it reach no file
    file: mmap.mmap

    @classmethod
    def open(cls, path: Path, shape: tuple[int, int, int]) -> "Mapped":
        """The pictures of a file that holds nothing else."""
        with open(path, "rb") as source:
            file = mmap.mmap(source.fileno(), math.prod(shape), access=mmap.ACCESS_COPY)
        return cls(torch.frombuffer(file, dtype=torch.uint8).view(shape), file)

    def read(self, rows: np.ndarray) -> Tensor:
        """(rows, height, width) uint8, a copy."""
        if hasattr(mmap, "MADV_WILLNEED"):
            # Asked for beforehand, just these pages are read, together; met one by one, each brings megabytes along.
            length = self.pixels[0].numel()
            for start in (rows * length).tolist():
                page = start - start % mmap.PAGESIZE
                self.file.madvise(mmap.MADV_WILLNEED, page, start + length - page)
        return self.pixels[torch.from_numpy(rows)]
