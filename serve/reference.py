"""What is usual, to tell drift by (serve/drift.py): made when a classifier is exported, stored in its file.

Slices of one patient are alike, so that limits come from patients: a few of those of the reference, drawn whole, are
compared with the rest, many times.
"""

import base64
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from zipfile import BadZipFile

import numpy as np

from serve.session import Scores
from sslbt.errors import UserError

KEY = "drift_reference"  # in the ONNX file's metadata
FORMAT = 1  # of what lies there; raise it when earlier code would misread it. Without a number it is of format 1
WINDOW = 300  # the last slices, that a report is about
SLICES = 30  # of one patient at most, in a reference and in a window; the figshare set has 15 on average
HANDFUL, MANY = 5, WINDOW // SLICES  # patients that a window is taken to be of, at least and at most
LEAST_FAMILIES = 4  # of a reference; two on either side of a comparison
ALARMS = 0.025  # of windows without drift, for classes and for pictures
DRAWS = 500
MOST_BYTES = 2**26  # of a reference; a usual one has 60 kB
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OSError, EOFError, MemoryError, BadZipFile, zlib.error)
DIMENSIONS = 32  # in which what was learnt lies

QUANTITIES = ("classes", "confidence", "strangeness", "features")


@dataclass(frozen=True)
class Reference:
    """What slices gave, most of them of patients that nothing was learnt from; it travels in the classifier's file.

    What was learnt is answered too surely to compare with. It says two things only: which mix of classes is usual, for
    which many patients are needed; and where features lie, `center` + the span of `basis`, their principal components.
    Features are compared by their distance from there (the residual of Jackson & Mudholkar 1979).
    """

    classes: tuple[str, ...]
    center: np.ndarray  # (channels,) float32
    basis: np.ndarray  # (channels, dimensions) float16
    shares: np.ndarray  # (classes,) of the classes found, float32
    found: np.ndarray  # (slices,) index of the class found, uint8
    values: np.ndarray  # (slices, 3) confidence, strangeness, distance of the features; float32
    limits: np.ndarray  # (numbers of patients, 4) of the statistics, by `QUANTITIES`; float32

    @classmethod
    def of(
        cls,
        classes: tuple[str, ...],
        unseen: Scores,
        families: np.ndarray,
        learnt: Scores,
        learnt_families: np.ndarray,
    ) -> "Reference":
        """Make one.

        Args:
            classes: in the classifier's order.
            unseen: scores of slices that the classifier did not learn from.
            families: (slices,) whose they are; at most `SLICES` of each, or one patient is the measure of all.
            learnt: scores of training slices.
            learnt_families: (training slices,) whose they are.

        Raises:
            ValueError: fewer than `LEAST_FAMILIES` families.
        """
        center = learnt.features.mean(axis=0, dtype=np.float32)
        axes = np.linalg.svd(learnt.features - center, full_matrices=False)[2]
        bare = cls(classes, center, axes[:DIMENSIONS].T.astype(np.float16), *[np.empty(0)] * 4)
        found, values, known = bare.measure(unseen)
        usual = learnt.probabilities.argmax(axis=1)
        limits = np.column_stack(
            [
                _class_limits(usual, _numbered(learnt_families), len(classes)),
                _picture_limits(found, values, _numbered(families[known]), len(classes)),
            ]
        ).astype(np.float32)
        shares = shares_of(usual, len(classes)).astype(np.float32)
        return cls(classes, center, bare.basis, shares, found.astype(np.uint8), values, limits)

    @classmethod
    def from_metadata(cls, metadata: dict[str, str], channels: int) -> "Reference | None":
        """That of a classifier's file; None where it holds none.

        Args:
            metadata: of the file.
            channels: of the classifier's features.

        Raises:
            UserError: it is damaged, of another classifier, or made by a newer version.
        """
        if KEY not in metadata:
            return None
        try:
            with np.load(io.BytesIO(base64.b64decode(metadata[KEY], validate=True)), allow_pickle=False) as stored:
                if sum(part.file_size for part in stored.zip.infolist()) > MOST_BYTES:
                    raise ValueError("it is too large")
                arrays = dict(stored)
            newer = int(arrays.pop("format", FORMAT)) > FORMAT
            reference = None if newer else cls(tuple(json.loads(metadata["classes"])), **arrays)
            if reference is not None:
                reference._check(channels)
        except DAMAGE as error:
            raise UserError(f"the model's reference for drift is damaged ({error}); export the model again") from error
        if reference is None:
            raise UserError("the model's reference for drift was made by a newer version of sslbt; update sslbt")
        return reference

    def _check(self, channels: int) -> None:
        """What a file that was changed by hand could hold."""
        slices, classes = len(self.found), len(self.classes)
        fits = self.center.shape == self.basis.shape[:1] == (channels,) and self.shares.shape == (classes,)
        fits = fits and self.found.shape == (slices,) and self.values.shape == (slices, len(QUANTITIES) - 1)
        if not fits or self.basis.ndim != 2 or self.limits.shape[1:] != (len(QUANTITIES),) or not len(self.limits):
            raise ValueError("its parts do not fit")
        if self.found.dtype.kind != "u" or (self.found >= classes).any():
            raise ValueError("it is about other classes")
        if not all(
            np.isfinite(part).all() for part in (self.center, self.basis, self.shares, self.values, self.limits)
        ):
            raise ValueError("it is not finite")

    def to_metadata(self) -> str:
        """As text, for the entry `KEY`: 30 kB for 500 slices, and 256 channels."""
        stored = {name: value for name, value in vars(self).items() if name != "classes"}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, format=np.array(FORMAT), **stored)
        return base64.b64encode(buffer.getvalue()).decode()

    def measure(self, scores: Scores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Class found and values (..., 3) of the pictures whose scores are finite, and which they are (pictures,)."""
        features = scores.features - self.center
        basis = self.basis.astype(np.float32)
        away = np.linalg.norm(features - features @ basis @ basis.T, axis=1)
        values = np.column_stack([scores.probabilities.max(axis=1), scores.strangeness, away]).astype(np.float32)
        known = np.isfinite(values.sum(axis=1))
        return scores.probabilities.argmax(axis=1)[known], values[known], known

    def limits_for(self, slices: int) -> np.ndarray:
        """Limits (4,) of the statistics of a window of so many slices."""
        return self.limits[min(max(slices // SLICES - HANDFUL, 0), len(self.limits) - 1)]


def change(now: np.ndarray, before: np.ndarray) -> float:
    """The greatest change of a share; (classes,) each."""
    return float(np.abs(now - before).max())


def unevenness(ranks: np.ndarray) -> np.ndarray:
    """How far ranks (slices, quantities) are from evenly spread at most, as Kolmogorov and Smirnov have it."""
    steps = np.arange(len(ranks) + 1)[:, None] / len(ranks)
    spread = np.sort(ranks, axis=0)
    return np.maximum(steps[1:] - spread, spread - steps[:-1]).max(axis=0)


def ranks_among(found: np.ndarray, values: np.ndarray, among: list[np.ndarray]) -> np.ndarray:
    """Which share of the reference's slices of the class found lies below each value; 0.5 where it has none.

    Args:
        found: (slices,) class.
        values: (slices, quantities).
        among: of each class (m, quantities), each column sorted.
    """
    ranks = np.full(values.shape, 0.5)
    for label in np.unique(found):
        own, others = found == label, among[label]
        if len(others):
            for column in range(values.shape[1]):
                ends = (np.searchsorted(others[:, column], values[own, column], side) for side in ("left", "right"))
                ranks[own, column] = sum(ends) / (2 * len(others))
    return ranks


def by_class(found: np.ndarray, values: np.ndarray, classes: int) -> list[np.ndarray]:
    """Values (slices, quantities) of each class found, each column sorted."""
    return [np.sort(values[found == label], axis=0) for label in range(classes)]


def shares_of(found: np.ndarray, classes: int) -> np.ndarray:
    """Of each class among those found (slices,); all 0 where there are none."""
    return np.bincount(found, minlength=classes) / max(1, len(found))


def _numbered(families: np.ndarray) -> np.ndarray:
    """0, 1, ... for each family.

    Raises:
        ValueError: they are fewer than `LEAST_FAMILIES`.
    """
    names, numbers = np.unique(families, return_inverse=True)
    if len(names) < LEAST_FAMILIES:
        raise ValueError(f"{len(names)} families; a reference needs {LEAST_FAMILIES}")
    return numbers


def _windows(members: np.ndarray) -> Iterator[np.ndarray]:
    """Which slices (slices,) are of `HANDFUL` to `MANY` families drawn at random, `DRAWS` times.

    Of fewer families than twice as many half are drawn.
    """
    generator, count = np.random.default_rng(0), members.max() + 1
    for _ in range(DRAWS):
        place = generator.permutation(count)[members]  # of each slice's family
        yield from (place < min(few, count // 2) for few in range(HANDFUL, MANY + 1))


def _class_limits(found: np.ndarray, members: np.ndarray, classes: int) -> np.ndarray:
    """Which change of a share `ALARMS` of the windows of a few families exceed beside the others; (patients,)."""
    drawn = [change(shares_of(found[own], classes), shares_of(found[~own], classes)) for own in _windows(members)]
    limits = np.quantile(np.reshape(drawn, (DRAWS, -1)), 1 - ALARMS, axis=0)
    return limits.clip(1e-6)  # where but one class is ever found


def _picture_limits(found: np.ndarray, values: np.ndarray, members: np.ndarray, classes: int) -> np.ndarray:
    """Which distances from evenness `ALARMS` of the windows of a few families exceed beside the others; (patients, 3).

    Each is measured by what 5 % exceed of it, and the greatest counts (Westfall & Young 1993): less strict than
    Bonferroni's correction where they go together.
    """
    drawn = np.array(
        [
            unevenness(ranks_among(found[own], values[own], by_class(found[~own], values[~own], classes)))
            for own in _windows(members)
        ]
    ).reshape(DRAWS, -1, values.shape[1])
    usual = np.quantile(drawn, 0.95, axis=0)
    return usual * np.quantile((drawn / usual).max(axis=2), 1 - ALARMS, axis=0)[:, None]
