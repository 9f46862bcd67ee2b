"""What pretraining costs against size, width and number of images, and whether it slows down beyond memory.

    python benchmarks/scale.py [--steps 4]       # prints the tables of docs/training.md

Slices are random pixels in a file, mapped into memory as the cache's are; the loop is ours, contrastive, 64 pairs a
step. Each line is a process of its own. For the set that is larger than memory, the process is held to fewer bytes
than the file has by a control group of the system, where this user may make one; it begins with that memory full.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from ending import in_a_sentence
from memory import PeakMemory

from sslbt.data.mapped import Mapped
from sslbt.nn.encoder import Encoder
from sslbt.pretext.pairs import Contrast, Pairs
from sslbt.tracking.telling import Silence
from sslbt.training.feed import Feed
from sslbt.training.loop import best_device, train
from sslbt.training.schedule import Schedule
from sslbt.training.tasks import Compare

BATCH, EPOCHS, PATIENT = 64, 4, 13  # pairs; the first epoch warms up; slices of a patient
RUNS = 3  # of each set, by turns
SIZES, WIDTHS, IMAGES = (64, 96, 128, 160, 224), (16, 32, 64), (2_000, 20_000, 200_000)
USUAL = (20_000, 96, 32)
GROUPS = Path("/sys/fs/cgroup/memory")
ALLOWED, LARGE, SMALL = 1536 * 2**20, 400_000, 2_000  # bytes; images of 96 x 96: 3.4 GiB, and 18 MiB


def draw(path: Path, images: int, size: int) -> None:
    """A file of random pixels, on the disk and out of the page cache."""
    left, block = images * size**2, np.random.default_rng(0).bytes(2**26)
    with open(path, "wb") as file:
        while left > 0:
            left -= file.write(block[:left])
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(path: Path, images: int, size: int, width: int, steps: int) -> tuple[float, float, float]:
    """Seconds for 1,000 slices, MiB held at most, and MiB read from the disk for 1,000 slices."""
    with open(path, "rb") as file:  # as after an epoch: in memory as far as that goes
        while file.read(2**24):
            pass
    mapped = Mapped.open(path, (images, size, size))
    files = np.arange(images).astype(str)
    patient = np.arange(images) // PATIENT
    table = pd.DataFrame({"file": files, "patient": patient, "family": patient, "label": 0})
    model = Contrast(Encoder(width), "ntxent", 0.2)
    feed = Feed(mapped.pixels, files, best_device(), mapped)
    task = Compare(model, feed, np.arange(images), Pairs(table, "patient"), steps * BATCH, BATCH)
    before = bytes_read()
    with PeakMemory() as memory, tempfile.TemporaryDirectory() as folder:
        state = train(task, Schedule(EPOCHS, steps, 2e-3), Path(folder), [], Silence())
    seconds = float(np.median([epoch.metrics["train/seconds"] for epoch in state.history[1:]]))
    thousands = 2 * BATCH * steps / 1000
    return seconds / thousands, memory.peak / 2**20, (bytes_read() - before) / 2**20 / thousands / EPOCHS


def bytes_read() -> int:
    """From disks, by this process."""
    return int(Path("/proc/self/io").read_text().split("\nread_bytes: ")[1].split()[0])


def child(path: Path, images: int, size: int, width: int, steps: int, group: Path | None) -> tuple[float, float, float]:
    """`measure` in a process of its own, in a control group if one is given."""
    command = [sys.executable, __file__, "--measure", json.dumps([str(path), images, size, width, steps])]

    def join() -> None:
        if group:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, preexec_fn=join)
    return tuple(json.loads(done.stdout))


@contextmanager
def limited(allowed: int) -> Iterator[Path | None]:
    """A control group whose processes hold at most so many bytes, the pages of files included; None where refused."""
    group = GROUPS / f"sslbt-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(allowed))
    except OSError:
        yield None
        return
    try:
        yield group
    finally:
        group.rmdir()


def cost(path: Path, steps: int) -> None:
    """One table: what is usual, and everything that differs from it in one way, or in size and width."""
    print("| images | size | width | s per 1,000 slices | peak memory, MiB |\n|---|---|---|---|---|")
    cases = [(USUAL[0], size, width) for size in SIZES for width in WIDTHS]
    for images, size, width in cases + [(images, *USUAL[1:]) for images in IMAGES if images != USUAL[0]]:
        draw(path, images, size)
        seconds, held, _ = child(path, images, size, width, steps, None)
        print(f"| {images:,} | {size} | {width} | {seconds:.2f} | {held:.0f} |", flush=True)


def beyond_memory(path: Path, steps: int) -> None:
    """The same training from a small set and from one that is larger than the memory allowed."""
    with limited(ALLOWED) as group:
        limit = f"{ALLOWED / 2**20:.0f} MiB allowed" if group else "no limit: this user can't make a control group"
        print(f"\n| images | file, MiB | slices/s | peak memory, MiB ({limit}) | read, MiB per 1,000 slices |")
        print("|---|---|---|---|---|")
        files = {images: path.with_name(f"pixels-{images}") for images in (SMALL, LARGE)}
        for images, file in files.items():
            draw(file, images, USUAL[1])
        turns = [[child(file, n, *USUAL[1:], steps, group) for n, file in files.items()] for _ in range(RUNS)]
        rates = {}
        for (images, file), (seconds, held, read) in zip(files.items(), np.median(turns, axis=0), strict=True):
            rates[images] = 1000 / seconds
            size = file.stat().st_size / 2**20
            print(f"| {images:,} | {size:.0f} | {rates[images]:.0f} | {held:.0f} | {read:.0f} |", flush=True)
    print(f"\nlarger than memory: {rates[LARGE] / rates[SMALL]:.2f} times as fast as the small set")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4, help="of a round; the median of three rounds counts")
    parser.add_argument("--part", choices=["cost", "beyond"], help="one of the two tables only")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        path, *rest = json.loads(given.measure)
        print(json.dumps(measure(Path(path), *rest)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pixels"
        if given.part != "beyond":
            cost(path, given.steps)
        if given.part != "cost":
            beyond_memory(path, given.steps)


if __name__ == "__main__":
    with in_a_sentence():
        main()
