"""How fast `prepare` reads .mat files, as a ratio to a bare h5py loop over the same files, and in how much memory.

    python benchmarks/prepare.py [FOLDER]        # without a folder: 2,000 phantoms of 512 x 512, drawn first

The bare loop reads image, label, PID and mask in one process and does nothing with them. `prepare` also resizes,
normalises, compares and writes, on all cores. Both find the files in the page cache; the better of two runs counts.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
from ending import in_a_sentence
from memory import PeakMemory

from sslbt.data.source import Source

RUNS = 2


def bare_loop(files: list[Path]) -> None:
    for path in files:
        with h5py.File(path) as file:
            for field in ("image", "label", "PID", "tumorMask"):
                file[f"cjdata/{field}"][()]


def prepare_anew(folder: Path) -> None:
    from sslbt.data.cache import prepare  # not above: the reading processes import this file too, and need no torch

    with tempfile.TemporaryDirectory() as home:
        os.environ["SSLBT_HOME"] = home
        prepare(Source(str(folder)))


def seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main(folder: Path) -> None:
    from sslbt.data.cache import prepare

    files = sorted(folder.glob("[0-9]*.mat"))
    bytes_read = sum(len(path.read_bytes()) for path in files)
    bare = min(seconds(lambda: bare_loop(files)) for _ in range(RUNS))
    ours = min(seconds(lambda: prepare_anew(folder)) for _ in range(RUNS))
    with PeakMemory() as before:
        time.sleep(0.5)
    with PeakMemory() as memory:
        prepare_anew(folder)
    with tempfile.TemporaryDirectory() as home:
        os.environ["SSLBT_HOME"] = home
        prepare(Source(str(folder)))
        again = min(seconds(lambda: prepare(Source(str(folder)))) for _ in range(RUNS))
    count = len(files)
    print(f"{count} files, {bytes_read / 2**20:.0f} MiB, {os.cpu_count()} cores")
    print(f"bare h5py loop       {count / bare:7.0f} slices/s  {bare:6.2f} s")
    print(f"prepare              {count / ours:7.0f} slices/s  {ours:6.2f} s   ratio {bare / ours:.2f}")
    print(f"prepare, unchanged   {again:.3f} s")
    above = (memory.peak - before.peak) / 2**20
    print(f"peak memory          {memory.peak / 2**20:.0f} MiB, {above:.0f} above the idle process")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    if folder := parser.parse_args().folder:
        with in_a_sentence():
            main(folder.expanduser())
    else:
        from sslbt.data.phantom import make_sample

        with in_a_sentence(), tempfile.TemporaryDirectory() as drawn:
            make_sample(Path(drawn), patients=350, size=512)
            main(Path(drawn))
