"""From files to slices as the cache holds them, on all cores.

Torch-free, so that the processes that read start in a moment.
"""

import ctypes
import hashlib
import math
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing import get_context, parent_process
from threading import Thread

import numpy as np

from sslbt.cores import cores
from sslbt.data.files import File, OnDisk
from sslbt.data.formats import read, slice_name
from sslbt.data.normalise import SIDE, normalise, shrink
from sslbt.data.slices import Slice, check_pixels
from sslbt.errors import UserError

FEW = 32  # files that are read before other processes would have started
AT_ONCE = 8  # files a task
LARGE = 2**24  # bytes: a task gets no more files once it has these
MEMORY = 2**30  # bytes of files that are taken up ahead of the slices given
MAX_SLICES = 10_000  # of one file
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
    mask: np.ndarray  # (256, 32) uint8, np.packbits of where the tumour is; all zero where the file doesn't say
    tumour: float  # share of the picture that it covers, NaN where the file doesn't say


@dataclass(frozen=True)
class Refused:
    """A file or slice that can't be used."""

    path: str
    reason: str
    expected: bool = False  # an empty slice at the end of a volume: no mistake of anybody's


def read_files(files: Iterable[File]) -> Iterator[Found | Refused]:
    """Every slice of every file, in order, with a few files per core in memory; nothing of a damaged file.

    Raises:
        UserError: a process was killed.
    """
    tasks = _groups(_sendable(name, reader) for name, reader in files)
    yield from chain.from_iterable(map(_read_group, islice(tasks, FEW // AT_ONCE)))
    rest = next(tasks, None)
    if rest is None:
        return
    workers = cores()
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin)
    ahead: deque[tuple[str, int, Future[list[Found | Refused]]]] = deque()
    try:
        for group in chain([rest], tasks):
            size = sum(_size(content) for _, content in group)
            ahead.append((group[0][0], size, pool.submit(_read_group, group)))
            while len(ahead) > 3 * workers or sum(size for _, size, _ in ahead) > MEMORY:
                yield from ahead[0][2].result()
                ahead.popleft()
        while ahead:
            yield from ahead[0][2].result()
            ahead.popleft()
    except BrokenProcessPool as error:
        raise UserError(
            f"{ahead[0][0]} or a file soon after it: a process that reads was killed (out of memory?) or crashed; "
            "run it again with less running beside it, or without that file"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


Content = OnDisk | bytes | UserError
Task = list[tuple[str, Content]]


def _sendable(name: str, reader: Callable[[], bytes]) -> tuple[str, Content]:
    """Files of a folder are read where they are decoded; a zip is read here, in order."""
    if isinstance(reader, OnDisk):
        return name, reader
    try:
        return name, reader()
    except UserError as error:
        return name, error


def _groups(contents: Iterator[tuple[str, Content]]) -> Iterator[Task]:
    """A few small files, or one large."""
    group: Task = []
    size = 0
    for name, content in contents:
        group.append((name, content))
        size += _size(content)
        if len(group) == AT_ONCE or size > LARGE:
            yield group
            group, size = [], 0
    if group:
        yield group


def _size(content: Content) -> int:
    if isinstance(content, OnDisk):
        with suppress(OSError):  # said where it is read
            return content.path.stat().st_size
    return len(content) if isinstance(content, bytes) else 0


def _begin() -> None:
    """What a process does before it reads."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the first process sees to the others' end
    Thread(target=_end_with_parent, daemon=True).start()
    _keep_memory()


def _end_with_parent() -> None:
    """One that was killed can't see to its children's end: they would wait for work for ever."""
    if parent := parent_process():
        parent.join()
        os._exit(1)


def _keep_memory() -> None:
    """Keep freed memory for the next slice: getting megabytes back page by page takes a fifth of the time (glibc)."""
    with suppress(OSError, TypeError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 2**25)
        libc.mallopt(M_TRIM_THRESHOLD, 2**28)


def _read_group(group: Task) -> list[Found | Refused]:
    return list(chain.from_iterable(_read_file(name, content) for name, content in group))


def _read_file(name: str, content: Content) -> list[Found | Refused]:
    try:
        if isinstance(content, UserError):
            raise content
        slices = read(content() if isinstance(content, OnDisk) else content, name)
        found = [_found(slice_, slice_name(name, slice_.number)) for slice_ in islice(slices, MAX_SLICES)]
        if next(slices, None):
            raise UserError(f"{name}: more than {MAX_SLICES} slices; export fewer at a time")
    except UserError as error:
        return [Refused(name, str(error))]
    return found


def _found(slice_: Slice, path: str) -> Found | Refused:
    try:
        pixels = check_pixels(slice_.pixels, path)
    except UserError as error:
        return Refused(path, str(error), expected=bool(slice_.number) and np.ptp(slice_.pixels) == 0)
    small = normalise(pixels)
    mask = np.zeros((SIDE, SIDE), bool) if slice_.mask is None else shrink(slice_.mask)
    return Found(
        path,
        small,
        sha256=hashlib.sha256(small.tobytes()).hexdigest(),
        height=pixels.shape[0],
        width=pixels.shape[1],
        low=float(pixels.min()),
        high=float(pixels.max()),
        patient=slice_.patient,
        label=slice_.label,
        plane=slice_.plane,
        synthetic=slice_.synthetic,
        mask=np.packbits(np.ascontiguousarray(mask), axis=1),
        tumour=float(mask.mean()) or math.nan,  # a mask of nothing says nothing
    )
