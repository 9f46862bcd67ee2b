"""The exported classifier in an ONNX Runtime session: pictures in, one row of scores a picture out."""

import json
import math
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from serve.pictures import Picture
from sslbt.data.slices import first_line
from sslbt.errors import UserError

FORMAT = 1  # of the file, as `sslbt.export.onnx` writes it; a file without a number is of format 1
MAX_BATCH = 16
MAX_BATCH_PIXELS = MAX_BATCH * 512 * 512
TRIAL_SECONDS = 60.0  # that a file's first answers may take; a second does
SAID = 200  # characters of what a library says of a file, which may quote all of it

SCORES = ("probabilities", "strangeness", "features")
SALIENCY, EXPLAIN = "saliency", "explain"  # an output, and the input that asks for it
STRANGER = "not a brain MRI as it knows them"  # how a reason begins that is about the picture, not the classes

Row = dict[str, Any]


@dataclass(frozen=True)
class Scores:
    """What the file gives for some pictures, float32."""

    probabilities: np.ndarray  # (pictures, classes), calibrated
    strangeness: np.ndarray  # (pictures,)
    features: np.ndarray  # (pictures, channels), what the encoder saw
    saliency: list[np.ndarray] | None = None  # (side, side) each in [0, 1]: where the class found was seen

    def of(self, index: int) -> "Scores":
        """Those of one picture."""
        one = slice(index, index + 1)
        maps = None if self.saliency is None else self.saliency[one]
        return Scores(self.probabilities[one], self.strangeness[one], self.features[one], maps)


class Classifier:
    """An ONNX file of sslbt's contract, ready to score.

    The file takes `image`, float32 (batch, height, width), and gives what `Scores` holds; `saliency` only newer ones.
    Its metadata name the classes, where it came from, and when it answers: a class is plausible from the probability
    `plausible_above` on, one plausible class alone is an answer, and what is stranger than `strange_above` is no brain
    MRI.
    """

    def __init__(self, session: ort.InferenceSession, metadata: dict[str, str]) -> None:
        self.session = session
        self.metadata = metadata
        self.classes = _classes(metadata["classes"])
        self.plausible_above, self.guarantee = (_share(metadata[name]) for name in ("plausible_above", "guarantee"))
        self.strange_above = float(metadata["strange_above"])
        self.explains = any(output.name == SALIENCY for output in session.get_outputs())  # can it say where?
        self.channels = 0  # of the features
        self._options = ort.RunOptions()

    @classmethod
    def load(cls, path: Path, threads: int = 1) -> "Classifier":
        """Open a classifier and try it once, so that the first picture doesn't wait.

        Nothing but this file is read: weights that it says are in another file are not looked for.

        Args:
            path: the ONNX file.
            threads: threads ONNX Runtime uses within one call.

        Raises:
            UserError: no such file, not ONNX, not of the contract, of another version's, or without an answer within
                `TRIAL_SECONDS`.
        """
        if not path.is_file():
            raise UserError(f"{path}: no such file; give the classifier's .onnx file")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # nothing: it warns of inputs that may be left out, and errors are raised too
        # A folder that can't be: ONNX Runtime would read weights from files beside the model.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path / "none"))
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise UserError(f"{path}: no readable ONNX file ({_said(error)}); export the model again") from error
        metadata = dict(session.get_modelmeta().custom_metadata_map)
        if problem := _other_version(session, metadata):
            raise UserError(f"{path}: {problem}")
        try:
            classifier = cls(session, metadata)
            classifier._try_once()
        except Exception as error:
            raise UserError(
                f"{path}: ONNX, but no classifier of sslbt ({_said(error)}); export one with `sslbt register`"
            ) from error
        return classifier

    def scores(self, pictures: Sequence[np.ndarray], saliency: bool = False) -> Scores:
        """Ask the file.

        Args:
            pictures: (height, width) each, of any sizes and types.
            saliency: whether to ask where the class was seen too, which takes about twice as long.
        """
        names, asked = [*SCORES], {}
        if saliency and self.explains:
            names, asked = [*SCORES, SALIENCY], {EXPLAIN: np.array(True)}
        found: list[tuple[np.ndarray, ...]] = [()] * len(pictures)
        for batch in _same_size(pictures):
            with np.errstate(over="ignore"):  # what float32 can't hold turns up as a score that is not finite
                image = np.stack([pictures[index] for index in batch], dtype=np.float32, casting="unsafe")
            answers = self.session.run(names, {"image": image} | asked, self._options)
            for place, index in enumerate(batch):
                found[index] = tuple(answer[place] for answer in answers)
        if not found:
            none = partial(np.empty, dtype=np.float32)
            return Scores(none((0, len(self.classes))), none(0), none((0, self.channels)))
        probabilities, strangeness, features, *maps = zip(*found, strict=True)
        return Scores(np.stack(probabilities), np.stack(strangeness), np.stack(features), list(*maps) or None)

    def rows(self, pictures: Iterable[Picture]) -> Iterator[Row]:
        """One row a picture, in order; pictures are drawn as needed, so that few are in memory at a time.

        Yields:
            `label`, `p_<class>` for each class, `confidence`, `abstain` and `reason`, which is empty unless the
            model abstains. A picture that could not be had gives a row whose label and numbers are None.
        """
        for chunk in _chunks(pictures):
            scores = self.scores([picture for picture in chunk if isinstance(picture, np.ndarray)])
            yield from self.told(chunk, scores)

    def told(self, pictures: Sequence[Picture], scores: Scores) -> Iterator[Row]:
        """One row a picture, where `scores` are of those that could be had."""
        found = zip(scores.probabilities, scores.strangeness, strict=True)
        for picture in pictures:
            yield self._failed(str(picture)) if isinstance(picture, UserError) else self._scored(*next(found))

    def _scored(self, probabilities: np.ndarray, strangeness: np.float32) -> Row:
        if not np.isfinite([*probabilities, strangeness]).all():
            return self._failed("the model found no finite score; are the pixels within the range of float32?")
        best = int(probabilities.argmax())
        reason = self._doubt(probabilities, float(strangeness))
        scores = [float(p) for p in probabilities]
        return self._row(self.classes[best], scores, scores[best], bool(reason), reason)

    def _doubt(self, probabilities: np.ndarray, strangeness: float) -> str:
        """Why not to answer; empty where one class alone is plausible."""
        if strangeness > self.strange_above:
            return f"{STRANGER} (strangeness {strangeness:.2f}; {self.strange_above:.2f} would pass)"
        plausible = [name for name, p in zip(self.classes, probabilities, strict=True) if p >= self.plausible_above]
        if len(plausible) == 1:
            return ""
        if not plausible:
            return f"no class reaches the {self.plausible_above:.2f} that makes it plausible"
        return f"plausible are {', '.join(plausible[:-1])} and {plausible[-1]}: each reaches {self.plausible_above:.2f}"

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
        if not all(map(_plain, (self.metadata["run_id"], self.metadata["version"]))):
            raise ValueError("its run_id or version is no name")
        if math.isnan(self.strange_above):
            raise ValueError("strange_above is no number")
        square, wide = (np.arange(32 * width, dtype=np.float32).reshape(32, width) for width in (32, 48))
        with _limited(self._options):
            found, maps = self.scores([square, wide, wide]), self.scores([square], saliency=True).saliency or []
        self._options = ort.RunOptions()  # the timer may fire late
        probabilities = found.probabilities
        if probabilities.shape != (3, len(self.classes)) or not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
            raise ValueError("its scores are no probabilities")
        if (probabilities < 0).any() or found.strangeness.shape != (3,) or found.features.ndim != 2:
            raise ValueError("its scores are not those of a classifier")
        if any(one.ndim != 2 for one in maps):
            raise ValueError("its saliency is no map")
        self.channels = found.features.shape[1]


@contextmanager
def _limited(options: ort.RunOptions) -> Iterator[None]:
    """End what runs with these options where it takes too long."""
    timer = threading.Timer(TRIAL_SECONDS, partial(setattr, options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _classes(stated: str) -> tuple[str, ...]:
    names = json.loads(stated)
    if not isinstance(names, list) or not names or not all(map(_plain, names)) or len(set(names)) < len(names):
        raise ValueError("its classes are no list of different names")
    return tuple(names)


def _plain(name: object) -> bool:
    """Whether it can stand in a line of a table, a log or a page."""
    return isinstance(name, str) and bool(re.fullmatch(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,200}", name))


def _share(stated: str) -> float:
    share = float(stated)
    if not 0 <= share <= 1:
        raise ValueError(f"{stated} is no share")
    return share


def _other_version(session: ort.InferenceSession, metadata: dict[str, str]) -> str:
    """Why a classifier of sslbt can't be read by this version of it, and the remedy; empty where it can."""
    if metadata.get("format", "1") not in map(str, range(1, FORMAT + 1)):
        return "made by a newer version of sslbt; update sslbt to read it"
    outputs = {output.name for output in session.get_outputs()}
    missing = set(SCORES) - outputs
    if missing and SCORES[0] in outputs and metadata.keys() >= {"classes", "run_id", "version"}:
        return f"made by an earlier version of sslbt, without {min(missing)}; export it again with `sslbt register`"
    return ""


def _same_size(pictures: Sequence[np.ndarray]) -> Iterator[list[int]]:
    """Places of pictures that go through the network together."""
    alike: dict[tuple[int, ...], list[int]] = {}
    for index, picture in enumerate(pictures):
        alike.setdefault(picture.shape, []).append(index)
    for (height, width), members in alike.items():
        step = max(1, min(MAX_BATCH, MAX_BATCH_PIXELS // (height * width)))
        yield from (members[start : start + step] for start in range(0, len(members), step))


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


def _said(error: Exception) -> str:
    """What is wrong with a file, briefly."""
    return f"its metadata lack {error.args[0]}" if isinstance(error, KeyError) else first_line(error)[:SAID]
