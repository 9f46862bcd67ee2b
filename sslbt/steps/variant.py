"""The smaller file that `register` offers, if it is worth it."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime

from sslbt.data.cache import Cache
from sslbt.data.splits import Split, some
from sslbt.export.smaller import eight_bits
from sslbt.terminal import say
from sslbt.tracking.models import SMALL_ONNX
from sslbt.tracking.run import Run

CALIBRATION = 128  # training slices that set the ranges
POINT = 0.01  # of accuracy may not be lost


def offer_smaller(whole: Path, split: Split, cache: Cache, test: Iterable[tuple[int, np.ndarray]], run: Run) -> None:
    """Log the file with eight bits beside the whole one, unless it loses a point on the test slices.

    Args:
        whole: the exported file.
        split: which slices trained; where none did, nothing is offered.
        cache: the data.
        test: label, by the classifier's order of classes, and raw pixels of each test slice.
        run: gets the file, and the figures either way as `small/...`.
    """
    train = split.rows("train")
    if not len(train):
        return
    with TemporaryDirectory() as folder:
        small = Path(folder, "small.onnx")
        eight_bits(whole, small, cache.pixels[some(train, CALIBRATION)])
        figures = beside(whole, small, test)
        run.metrics({f"small/{name}": value for name, value in figures.items()})
        told = (
            f"{figures['size']:.0%} of the size, {figures['accuracy_lost']:.3f} of the accuracy lost, "
            f"{figures['answers_changed']:.1%} of the answers changed"
        )
        if not figures["accuracy_lost"] < POINT:
            say(f"no smaller file is offered: {told}")
            return
        with run.artifact(SMALL_ONNX) as place:
            shutil.copyfile(small, place)
        say(f"{SMALL_ONNX}, eight bits: {told}")


def beside(whole: Path, small: Path, test: Iterable[tuple[int, np.ndarray]]) -> dict[str, float]:
    """Accuracy that the smaller file loses, how many answers (a class, or none) it changes, its share of the size."""
    sessions = [onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in (whole, small)]
    right, answers = [], []
    for label, pixels in test:
        image = {"image": pixels.astype(np.float32)[None]}
        found = [own.run(["probabilities", "abstain"], image) for own in sessions]
        best = [int(probabilities[0].argmax()) for probabilities, _ in found]
        right.append([own == label for own in best])
        answers.append([-1 if abstain[0] else own for own, (_, abstain) in zip(best, found, strict=True)])
    accuracy, given = np.mean(right, axis=0), np.array(answers)
    return {
        "accuracy_lost": float(accuracy[0] - accuracy[1]),
        "answers_changed": float((given[:, 0] != given[:, 1]).mean()),
        "size": small.stat().st_size / whole.stat().st_size,
    }
