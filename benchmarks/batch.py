"""How fast `sslbt score` is, as a ratio to bare decoding and a bare session on all cores, and in how much memory.

    python benchmarks/batch.py FOLDER [--model CLASSIFIER.onnx] [--limit 1000] [--rounds 5]
    python benchmarks/batch.py FOLDER --rows 20000,200000     # memory, by rows of a Parquet file of 64 x 64 pixels

FOLDER holds .mat files; PNG of the same pixels are made first. The limit is a loop that decodes a file (h5py, Pillow)
and runs the session (one thread, one picture), by a pool of threads and by one of processes, whichever is faster; it
keeps nothing. Loading the model counts for `score` and not for the limit. By turns, since a machine's speed drifts; the
median of the rounds' ratios counts. Files are in the page cache.
"""

import argparse
import io
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as pq
from ending import in_a_sentence
from memory import PeakMemory
from PIL import Image

from serve.batch import score
from sslbt.cores import cores

RELEASED = Path(__file__).parents[1] / "sslbt/released/classifier.onnx"
CORES = cores()
PROCESSES = "limit, processes"
CHUNK = 8  # files a process gets at once
session: ort.InferenceSession


def load(model: Path) -> None:
    global session
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # no warning that an input has a default
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def begin(model: Path) -> None:
    """Makes a process of the pool ready; an interrupt is for the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    load(model)


def bare(path: Path) -> np.ndarray:
    if path.suffix == ".mat":
        with h5py.File(path) as file:
            pixels = file["cjdata/image"][()].T
    else:
        pixels = np.asarray(Image.open(path))
    return session.run(["probabilities", "strangeness"], {"image": pixels[None].astype(np.float32)})[0]


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """By the clock, and of this process's computing."""
    began, computed = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - computed


def speed(model: Path, files: list[Path], rounds: int) -> None:
    """Files a second of each way and their ratio, printed."""
    folder, count = files[0].parent, len(files)
    load(model)
    with (
        ThreadPoolExecutor(CORES) as threads,
        ProcessPoolExecutor(CORES, get_context("spawn"), begin, (model,)) as processes,
    ):
        ways = {
            "limit, threads": lambda: list(threads.map(bare, files)),
            PROCESSES: lambda: list(processes.map(bare, files, chunksize=CHUNK)),
            "sslbt score": lambda: score(model, folder, folder / "scores.parquet"),
        }
        list(processes.map(bare, files[: 4 * CORES * CHUNK], chunksize=CHUNK))  # all have started
        rate: dict[str, list[float]] = {name: [] for name in ways}
        computing: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                taken, computed = seconds(way)
                rate[name].append(count / taken)
                computing[name].append(1000 * computed / count)
    kind = files[0].suffix[1:]
    for name, own in rate.items():
        spent = "" if name == PROCESSES else f", {statistics.median(computing[name]):5.2f} ms of a core a file"
        print(f"{kind} {name:16} {statistics.median(own):6.1f} files/s{spent}")
    ratio = [ours / max(limits) for *limits, ours in zip(*rate.values(), strict=True)]
    print(f"{kind} ratio {statistics.median(ratio):.2f} ({min(ratio):.2f} to {max(ratio):.2f})", flush=True)


def memory(model: Path, rows: int, folder: Path) -> None:
    """The most that scoring so many rows holds, in a process of its own, printed."""
    source = folder / f"{rows}.parquet"
    pixels = np.random.default_rng(0).integers(0, 255, (1000, 64, 64), np.uint8)
    images = pa.table({"image": pa.array([encoded(picture) for picture in pixels], pa.binary())})
    with pq.ParquetWriter(source, images.schema) as writer:
        for _ in range(rows // 1000):
            writer.write_table(images)
    code = "import sys; from pathlib import Path; from serve.batch import score; score(*map(Path, sys.argv[1:]))"
    output = folder / "scores.parquet"
    with PeakMemory() as before:
        time.sleep(0.5)
    with PeakMemory() as held:
        took, _ = seconds(lambda: subprocess.run([sys.executable, "-c", code, model, source, output], check=True))
    assert pq.read_metadata(output).num_rows == rows
    print(f"{rows} rows: {(held.peak - before.peak) / 2**20:.0f} MiB, {rows / took:.0f} rows/s", flush=True)


def encoded(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("--model", type=Path, default=RELEASED)
    parser.add_argument("--limit", type=int, default=1000, help="files")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", help="numbers of rows, commas between, to measure memory instead")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        if given.rows:
            for rows in given.rows.split(","):
                memory(given.model, int(rows), Path(place))
            return
        paths = sorted(given.folder.expanduser().glob("[0-9]*.mat"))[: given.limit]
        if not paths:
            raise SystemExit(f"{given.folder}: no .mat files such as 1.mat; give the folder of the data set")
        for suffix in ("mat", "png"):
            folder = Path(place, suffix)
            folder.mkdir()
            for path in paths:
                copy = folder / f"{path.stem}.{suffix}"
                if suffix == "mat":
                    copy.write_bytes(path.read_bytes())
                else:
                    with h5py.File(path) as file:
                        copy.write_bytes(encoded(file["cjdata/image"][()].T.astype(np.uint8)))
            speed(given.model, sorted(folder.iterdir()), given.rounds)


if __name__ == "__main__":
    with in_a_sentence():
        main()
