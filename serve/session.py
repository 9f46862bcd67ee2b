"""The exported classifier in an ONNX Runtime session: pictures in, one row of scores a picture out."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from serve.pictures import Picture
from sslbt.errors import UserError

MAX_BATCH = 16
MAX_BATCH_PIXELS = MAX_BATCH * 512 * 512

Row = dict[str, Any]


class Classifier:
    """An ONNX file of sslbt's contract, ready to score.

    The file takes `image`, float32 (batch, height, width), and gives `probabilities`, float32 (batch, classes),
    calibrated; its metadata name the classes, the confidence below which it abstains, and where it came from.
    """

    def __init__(self, session: ort.InferenceSession, metadata: dict[str, str]) -> None:
        self.session = session
        self.metadata = metadata
        self.classes: tuple[str, ...] = tuple(json.loads(metadata["classes"]))
        self.abstain_below = float(metadata["abstain_below"])

    @classmethod
    def load(cls, path: Path, threads: int = 1) -> "Classifier":
        """Open a classifier and try it once, so that the first picture doesn't wait.

        Args:
            path: the ONNX file.
            threads: threads ONNX Runtime uses within one call.

        Raises:
            UserError: no such file, not ONNX, or not of the contract.
        """
        if not path.is_file():
            raise UserError(f"{path}: no such file; give the classifier's .onnx file")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise UserError(f"{path}: no readable ONNX file ({_first_line(error)}); export the model again") from error
        try:
            classifier = cls(session, dict(session.get_modelmeta().custom_metadata_map))
            classifier._try_once()
        except Exception as error:
            raise UserError(
                f"{path}: ONNX, but no classifier of sslbt ({_first_line(error)}); export one with `sslbt register`"
            ) from error
        return classifier

    def probabilities(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Calibrated probabilities, float32 (pictures, classes), of pictures (height, width) of any sizes and types."""
        scores = np.empty((len(pictures), len(self.classes)), np.float32)
        same_size: dict[tuple[int, ...], list[int]] = {}
        for index, picture in enumerate(pictures):
            same_size.setdefault(picture.shape, []).append(index)
        for (height, width), members in same_size.items():
            step = max(1, min(MAX_BATCH, MAX_BATCH_PIXELS // (height * width)))
            for start in range(0, len(members), step):
                batch = members[start : start + step]
                with np.errstate(over="ignore"):  # what float32 can't hold turns up as a score that is not finite
                    image = np.stack([pictures[index].astype(np.float32) for index in batch])
                scores[batch] = self.session.run(["probabilities"], {"image": image})[0]
        return scores

    def rows(self, pictures: Iterable[Picture]) -> Iterator[Row]:
        """One row a picture, in order; pictures are drawn as needed, so that few are in memory at a time.

        Yields:
            `label`, `p_<class>` for each class, `confidence`, `abstain` and `reason`, which is empty unless the
            model abstains. A picture that could not be had gives a row whose label and numbers are None.
        """
        for chunk in _chunks(pictures):
            readable = [picture for picture in chunk if isinstance(picture, np.ndarray)]
            scores = iter(self.probabilities(readable))
            for picture in chunk:
                yield self._failed(str(picture)) if isinstance(picture, UserError) else self._scored(next(scores))

    def _scored(self, scores: np.ndarray) -> Row:
        if not np.isfinite(scores).all():
            return self._failed("the model found no finite score; are the pixels within the range of float32?")
        best = int(scores.argmax())
        label, confidence = self.classes[best], float(scores[best])
        unsure = confidence < self.abstain_below
        reason = f"the likeliest class reaches {confidence:.2f}, less than the {self.abstain_below:.2f} needed"
        return self._row(label, [float(p) for p in scores], confidence, unsure, reason if unsure else "")

    def _failed(self, reason: str) -> Row:
        return self._row(None, [None] * len(self.classes), None, True, reason)

    def _row(
        self, label: str | None, scores: Sequence[float | None], confidence: float | None, abstain: bool, reason: str
    ) -> Row:
        named = {f"p_{name}": score for name, score in zip(self.classes, scores, strict=True)}
        return {"label": label, **named, "confidence": confidence, "abstain": abstain, "reason": reason}

    def _try_once(self) -> None:
        missing = {"run_id", "version"} - self.metadata.keys()
        if missing:
            raise ValueError(f"its metadata lack {', '.join(sorted(missing))}")
        ramp = np.arange(32 * 32, dtype=np.float32).reshape(32, 32)
        if not np.allclose(self.probabilities([ramp]).sum(), 1, atol=1e-3):
            raise ValueError("its scores are no probabilities")


def _chunks(pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
    chunk: list[Picture] = []
    pixels = 0
    for picture in pictures:
        chunk.append(picture)
        pixels += picture.size if isinstance(picture, np.ndarray) else 0
        if len(chunk) == MAX_BATCH or pixels >= MAX_BATCH_PIXELS:
            yield chunk
            chunk, pixels = [], 0
    if chunk:
        yield chunk


def _first_line(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"its metadata lack {error.args[0]}"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
