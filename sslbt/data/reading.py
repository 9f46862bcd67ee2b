"""From files to slices as the cache holds them, on all cores.

Torch-free, so that the processes that read start in a moment.
"""

import ctypes
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing import get_context

import numpy as np
from PIL import Image

from sslbt.data.files import File, OnDisk
from sslbt.data.formats import read, slice_name
from sslbt.data.slices import check_pixels
from sslbt.errors import UserError

SIDE = 256  # pixels a side in the cache; networks take this or less
CLIPPED = SIDE * SIDE // 100  # the darkest and the brightest percent saturate
FEW = 32  # files that are read before other processes would have started
AT_ONCE = 8  # files a task
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1  # of malloc.h


@dataclass(frozen=True)
class Found:
    """A slice as it goes into the cache, and what its file says of it."""

    path: str  # its file's name within the source, `#` and a number where the file holds several
    pixels: np.ndarray  # (256, 256) uint8
    sha256: str  # of pixels
    height: int  # of the slice in its file
    width: int
    low: float  # darkest and brightest pixel in its file
    high: float
    patient: str
    label: str
    plane: str
    synthetic: bool


@dataclass(frozen=True)
class Refused:
    """A file or slice that can't be used."""

    path: str
    reason: str
    expected: bool = False  # an empty slice at the end of a volume: no mistake of anybody's


def read_files(files: Iterable[File]) -> Iterator[Found | Refused]:
    """Every slice of every file, in order, with a few files per core in memory."""
    tasks = _groups(_sendable(name, reader) for name, reader in files)
    first = list(islice(tasks, FEW // AT_ONCE))
    yield from chain.from_iterable(map(_read_group, first))
    rest = next(tasks, None)
    if rest is None:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ProcessPoolExecutor(cores, get_context("spawn"), _keep_memory) as pool:
        ahead: deque[Future[list[Found | Refused]]] = deque()
        try:
            for group in chain([rest], tasks):
                ahead.append(pool.submit(_read_group, group))
                if len(ahead) > 3 * cores:
                    yield from ahead.popleft().result()
            while ahead:
                yield from ahead.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def normalise(pixels: np.ndarray) -> np.ndarray:
    """(height, width) pixels to (256, 256) uint8: `preprocess.Preprocess` without torch, rounded to 256 levels."""
    # Transposed as MATLAB's files are, the copy to float32 takes ten times as long; the result is the same.
    turned = pixels.flags.f_contiguous
    image = to_square((pixels.T if turned else pixels).astype(np.float32))
    picture = Image.frombuffer("F", image.shape[::-1], image, "raw", "F", 0, 1)
    small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    low, high = np.partition(small, (CLIPPED - 1, -CLIPPED), axis=None)[[CLIPPED - 1, -CLIPPED]]
    levels = ((small - low) * (255 / max(high - low, 1e-30))).clip(0, 255).round().astype(np.uint8)
    return levels.T if turned else levels


def to_square(image: np.ndarray) -> np.ndarray:
    """Pad (height, width) with its darkest value to the longer side, picture in the middle."""
    height, width = image.shape
    side = max(height, width)
    if height == width:
        return image
    square = np.full((side, side), image.min(), image.dtype)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square


Task = list[tuple[str, OnDisk | bytes | UserError]]


def _sendable(name: str, reader: Callable[[], bytes]) -> tuple[str, OnDisk | bytes | UserError]:
    """Files of a folder are read where they are decoded; a zip is read here, in order."""
    if isinstance(reader, OnDisk):
        return name, reader
    try:
        return name, reader()
    except UserError as error:
        return name, error


def _groups(contents: Iterator[tuple[str, OnDisk | bytes | UserError]]) -> Iterator[Task]:
    while group := list(islice(contents, AT_ONCE)):
        yield group


def _keep_memory() -> None:
    """Keep freed memory for the next slice: getting megabytes back page by page takes a fifth of the time (glibc)."""
    with suppress(OSError, TypeError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 2**25)
        libc.mallopt(M_TRIM_THRESHOLD, 2**28)


def _read_group(group: Task) -> list[Found | Refused]:
    return list(chain.from_iterable(_read_file(name, content) for name, content in group))


def _read_file(name: str, content: OnDisk | bytes | UserError) -> Iterator[Found | Refused]:
    try:
        if isinstance(content, UserError):
            raise content
        for found in read(content() if isinstance(content, OnDisk) else content, name):
            path = slice_name(name, found.number)
            try:
                pixels = check_pixels(found.pixels, path)
            except UserError as error:
                yield Refused(path, str(error), expected=bool(found.number) and np.ptp(found.pixels) == 0)
                continue
            small = normalise(pixels)
            yield Found(
                path,
                small,
                sha256=hashlib.sha256(small.tobytes()).hexdigest(),
                height=pixels.shape[0],
                width=pixels.shape[1],
                low=float(pixels.min()),
                high=float(pixels.max()),
                patient=found.patient,
                label=found.label,
                plane=found.plane,
                synthetic=found.synthetic,
            )
    except UserError as error:
        yield Refused(name, str(error))
