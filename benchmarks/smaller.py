"""Is a smaller file worth offering? Half precision and eight bits beside the exported classifier.

    python benchmarks/smaller.py DATA CLASSIFIER.onnx --split patient:1    # the split it was judged on

Every test slice is asked of all three files: size, time a slice of a session with one thread, accuracy, and how far
probabilities move. Eight bits are those of convolutions (static, scales from 128 training slices, by percentiles).
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from ending import in_a_sentence
from onnx.utils import Extractor
from onnxruntime.transformers.float16 import convert_float_to_float16

from sslbt.data.cache import Cache, prepare
from sslbt.data.source import Source
from sslbt.data.splits import make_split, some
from sslbt.export.smaller import eight_bits
from sslbt.steps.variant import CALIBRATION

ROUNDS, TIMED = 3, 64


def images(cache: Cache, rows: np.ndarray) -> Iterator[np.ndarray]:
    """(1, height, width) float32 each."""
    for row in rows:
        yield np.asarray(cache.pixels[row], np.float32)[None]


def half(whole: Path, out: Path) -> Path:
    """The same scores with weights and sums of sixteen bits; raw pixels and preprocessing stay as they are."""
    # Without where the class was seen: the converter breaks the branch that computes it only if asked.
    graph = Extractor(onnx.load(whole)).extract_model(["image"], ["probabilities"])
    blocked = {node.op_type for node in graph.graph.node} - {"Conv", "Gemm", "MatMul", "Relu", "Add"}
    onnx.save(convert_float_to_float16(graph, keep_io_types=True, op_block_list=sorted(blocked)), out)
    return out


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DATA")
    parser.add_argument("classifier", metavar="CLASSIFIER", type=Path)
    parser.add_argument("--split", default="patient")
    given = parser.parse_args()
    cache = prepare(Source(given.data))
    split = make_split(cache.table, given.split, cache.classes)
    train, test = split.rows("train"), split.rows("test")
    labels = cache.table.label.to_numpy()[test]
    with tempfile.TemporaryDirectory() as folder:
        eight_bits(given.classifier, Path(folder, "eight.onnx"), cache.pixels[some(train, CALIBRATION)])
        files = {
            "as exported": given.classifier,
            "half precision": half(given.classifier, Path(folder, "half.onnx")),
            "eight bits": Path(folder, "eight.onnx"),
        }
        before, seconds = None, {name: [] for name in files}
        sessions = {name: session(path) for name, path in files.items()}
        for _ in range(ROUNDS):  # by turns, so that other work on the machine hits all alike
            for name, own in sessions.items():
                began = time.perf_counter()
                for image in images(cache, test[:TIMED]):
                    own.run(["probabilities"], {"image": image})
                seconds[name].append((time.perf_counter() - began) / TIMED)
        print("| file | MB | ms a slice | accuracy | probabilities move by |")
        for name, own in sessions.items():
            found = np.concatenate([own.run(["probabilities"], {"image": image})[0] for image in images(cache, test)])
            before = found if before is None else before
            size, moved = files[name].stat().st_size / 1e6, np.abs(found - before).max()
            right = (found.argmax(axis=1) == labels).mean()
            print(f"| {name} | {size:.1f} | {1000 * min(seconds[name]):.1f} | {right:.3f} | {moved:.3f} |")


if __name__ == "__main__":
    with in_a_sentence():
        main()
