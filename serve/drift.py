"""Drift: is what is served still like what the classifier was judged on?

Four quantities of the last slices are compared with those of patients that it did not learn from: the shares of the
classes found; and, each among the reference's slices of the same class, confidence, strangeness, and how far features
lie from what was learnt. So a change of the mix of classes alone does not show in the latter three, as in context-aware
drift detection (Cobb & Van Looveren 2022, arXiv:2203.08644); by the model's own scores, with Kolmogorov and Smirnov's
distance, as Rabanser, Günnemann & Lipton 2019 (arXiv:1810.11953) found best.

Slices of one patient are alike, so that the limits come from the reference's patients: a few of them, drawn whole, are
compared with the rest, many times.
"""

import base64
import io
import json
import threading
import zlib
from dataclasses import dataclass
from typing import Any
from zipfile import BadZipFile

import numpy as np

from serve.session import Scores
from sslbt.errors import UserError

KEY = "drift_reference"  # in the ONNX file's metadata
WINDOW = 300  # the last slices, that a report is about
LEAST = 100  # slices, before anything is said
SLICES = 30  # of one patient at most, in a reference and in a window; the figshare set has 15 on average
HANDFUL, MANY = 5, WINDOW // SLICES  # patients that a window is taken to be of, at least and at most
LEAST_FAMILIES = 4  # of a reference; two on either side of a comparison
ALARMS = 0.025  # of windows without drift, for classes and for pictures
DRAWS = 500
DIMENSIONS = 32  # in which what was learnt lies; measured: 8 are worse, 128 no better

QUANTITIES = ("classes", "confidence", "strangeness", "features")


@dataclass(frozen=True)
class Reference:
    """What the slices of patients gave that nothing was learnt from; it travels in the classifier's file.

    Features are compared by their distance from `center` + the span of `basis`, the principal components of training
    features: the residual of Jackson & Mudholkar 1979, which training itself makes small for what was learnt.
    """

    classes: tuple[str, ...]
    center: np.ndarray  # (channels,) float32
    basis: np.ndarray  # (channels, dimensions) float16
    found: np.ndarray  # (slices,) index of the class found, uint8
    values: np.ndarray  # (slices, 3) confidence, strangeness, distance of the features; float32
    limits: np.ndarray  # (numbers of patients, 4) of the statistics, by `QUANTITIES`; float32

    @classmethod
    def of(cls, classes: tuple[str, ...], scores: Scores, families: np.ndarray, learnt: np.ndarray) -> "Reference":
        """Make one.

        Args:
            classes: in the classifier's order.
            scores: of slices that the classifier did not learn from.
            families: (slices,) whose they are; at most `SLICES` of each, or one patient is the measure of all.
            learnt: (n, channels) features of training slices.

        Raises:
            ValueError: fewer than `LEAST_FAMILIES` families.
        """
        center = learnt.mean(axis=0, dtype=np.float32)
        axes = np.linalg.svd(learnt - center, full_matrices=False)[2]
        bare = cls(classes, center, axes[:DIMENSIONS].T.astype(np.float16), *[np.empty(0)] * 3)
        found, values, known = bare.measure(scores)
        _, members = np.unique(families[known], return_inverse=True)
        limits = _limits(found, values, members, len(classes))
        return cls(classes, center, bare.basis, found.astype(np.uint8), values, limits)

    @classmethod
    def from_metadata(cls, metadata: dict[str, str]) -> "Reference | None":
        """That of a classifier's file; None where it holds none.

        Raises:
            UserError: it is damaged.
        """
        if KEY not in metadata:
            return None
        try:
            with np.load(io.BytesIO(base64.b64decode(metadata[KEY], validate=True)), allow_pickle=False) as stored:
                return cls(tuple(json.loads(metadata["classes"])), **stored)
        except (ValueError, KeyError, TypeError, OSError, EOFError, BadZipFile, zlib.error) as error:
            raise UserError(f"the model's reference for drift is damaged ({error}); export the model again") from error

    def to_metadata(self) -> str:
        """As text, for the entry `KEY`; about 40 kB for 1,000 slices."""
        stored = {name: value for name, value in vars(self).items() if name != "classes"}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **stored)
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


@dataclass(frozen=True)
class Quantity:
    """One of `QUANTITIES` of a window."""

    statistic: float  # classes: the greatest change of a share; others: distance of Kolmogorov and Smirnov
    limit: float  # what it exceeds seldom without drift
    above: float  # on average a slice lies above this share of the reference's of its class; 0.5 for classes

    @property
    def ratio(self) -> float:
        """Above 1 it is an alarm."""
        return self.statistic / self.limit


@dataclass(frozen=True)
class DriftReport:
    """The last slices beside the reference."""

    slices: int  # that it is about
    seen: int  # since the start
    quantities: dict[str, Quantity]  # by `QUANTITIES`; empty where so few slices, less than `LEAST`, tell nothing
    shares: dict[str, tuple[float, float]]  # by class: of the slices, of the reference

    @property
    def headline(self) -> float:
        """The greatest of the ratios to their limits; 0 where there are too few slices."""
        return max((own.ratio for own in self.quantities.values()), default=0.0)

    @property
    def drifted(self) -> bool:
        return self.headline > 1

    @property
    def alarms(self) -> tuple[str, ...]:
        """Quantities above their limit."""
        return tuple(name for name, own in self.quantities.items() if own.ratio > 1)

    def sentence(self) -> str:
        """What changed, for a person."""
        if not self.quantities:
            return f"{self.slices} slices are too few to tell drift; {LEAST} are needed."
        if not self.drifted:
            return f"No drift: the last {self.slices} slices are like the reference ({self.headline:.2f}; alarm at 1)."
        told = [self._told(name) for name in self.alarms]
        pictures = set(self.alarms) - {"classes"}
        if "classes" not in self.alarms:
            verdict = "the pictures changed, not clearly the mix of classes"
        elif pictures:
            verdict = "the pictures changed, which may be why other classes are found"
        else:
            verdict = "the mix of classes changed, not the pictures of a class"
        return f"Drift in the last {self.slices} slices, {verdict}: {'; '.join(told)}."

    def as_metrics(self) -> dict[str, float]:
        """`drift`, the headline; `drift_alarm`, 0 or 1; `drift_slices`; `drift_<quantity>`, ratios to their limits."""
        ratios = {f"drift_{name}": own.ratio for name, own in self.quantities.items()}
        return {
            "drift": self.headline,
            "drift_alarm": float(self.drifted),
            "drift_slices": float(self.slices),
            **ratios,
        }

    def _told(self, name: str) -> str:
        if name == "classes":
            most = max(self.shares, key=lambda own: abs(self.shares[own][0] - self.shares[own][1]))
            now, before = self.shares[most]
            return f"{most} is found in {now:.0%} of them, in the reference in {before:.0%}"
        above = self.quantities[name].above
        lower, higher = ("lie nearer to", "lie farther from") if name == "features" else ("is lower", "is higher")
        what = f"{name} {higher if above > 0.5 else lower}{' what was learnt' if name == 'features' else ''}"
        return f"{what} (on average above {above:.0%} of the reference's slices of the same class, not half)"


class Drift:
    """The last slices, in memory that does not grow; may be used from several threads.

    Args:
        reference: what they are compared with.
        window: so many slices are kept.
    """

    def __init__(self, reference: Reference, window: int = WINDOW) -> None:
        self.reference = reference
        self._sorted = _by_class(reference.found, reference.values, len(reference.classes))
        self._shares = _shares(reference.found, len(reference.classes))
        self._found = np.empty(window, np.int64)
        self._ranks = np.empty((window, len(QUANTITIES) - 1))
        self._seen = 0
        self._lock = threading.Lock()

    def add(self, scores: Scores) -> None:
        """Note scores; those that are not finite are left out."""
        found, values, _ = self.reference.measure(scores)
        ranks = _ranks(found, values, self._sorted)
        with self._lock:
            window = len(self._found)
            places = (self._seen + np.arange(len(found))) % window
            self._found[places[-window:]], self._ranks[places[-window:]] = found[-window:], ranks[-window:]
            self._seen += len(found)

    def report(self) -> DriftReport:
        """What the last slices are like."""
        with self._lock:
            seen = self._seen
            slices = min(seen, len(self._found))
            found, ranks = self._found[:slices].copy(), self._ranks[:slices].copy()
        now = _shares(found, len(self._shares))
        shares = dict(zip(self.reference.classes, zip(now.tolist(), self._shares.tolist(), strict=True), strict=True))
        if slices < LEAST:
            return DriftReport(slices, seen, {}, shares)
        statistics, limits = _statistics(now, self._shares, ranks), self.reference.limits_for(slices)
        figures = zip(QUANTITIES, statistics, limits, (0.5, *ranks.mean(axis=0)), strict=True)
        return DriftReport(slices, seen, {name: Quantity(*map(float, own)) for name, *own in figures}, shares)


def _limits(found: np.ndarray, values: np.ndarray, members: np.ndarray, classes: int) -> np.ndarray:
    """What `ALARMS` of the windows of a few of the reference's families exceed, compared with the other families.

    Confidence, strangeness and features share their alarms: each is measured by what 5 % exceed of it, and the greatest
    counts (Westfall & Young 1993), which is less strict than Bonferroni's correction where they go together.

    Returns:
        (patients, 4), for `HANDFUL` to `MANY` patients, but at most half of the families.
    """
    count = int(members.max()) + 1 if len(members) else 0
    if count < LEAST_FAMILIES:
        raise ValueError(f"{count} families; a reference needs {LEAST_FAMILIES}")
    generator: Any = np.random.default_rng(0)
    patients = range(min(HANDFUL, count // 2), min(MANY, count // 2) + 1)
    drawn = np.empty((DRAWS, len(patients), len(QUANTITIES)))
    for draw in range(DRAWS):
        place = generator.permutation(count)[members]  # of each slice's family
        for row, few in enumerate(patients):
            own = place < few
            others = _by_class(found[~own], values[~own], classes)
            now, before = _shares(found[own], classes), _shares(found[~own], classes)
            drawn[draw, row] = _statistics(now, before, _ranks(found[own], values[own], others))
    usual = np.quantile(drawn, 0.95, axis=0)[:, 1:]
    together = np.quantile((drawn[:, :, 1:] / usual).max(axis=2), 1 - ALARMS, axis=0)
    of_classes = np.quantile(drawn[:, :, 0], 1 - ALARMS, axis=0).clip(1e-6)  # where but one class is ever found
    return np.column_stack([of_classes, usual * together[:, None]]).astype(np.float32)


def _statistics(now: np.ndarray, before: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """(4,): the greatest change of a class's share; how far ranks (slices, 3) are from evenly spread, at most."""
    steps = np.arange(len(ranks) + 1)[:, None] / len(ranks)
    spread = np.sort(ranks, axis=0)
    far = np.maximum(steps[1:] - spread, spread - steps[:-1]).max(axis=0)
    return np.concatenate([[np.abs(now - before).max()], far])


def _ranks(found: np.ndarray, values: np.ndarray, among: list[np.ndarray]) -> np.ndarray:
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


def _by_class(found: np.ndarray, values: np.ndarray, classes: int) -> list[np.ndarray]:
    return [np.sort(values[found == label], axis=0) for label in range(classes)]


def _shares(found: np.ndarray, classes: int) -> np.ndarray:
    return np.bincount(found, minlength=classes) / max(1, len(found))
