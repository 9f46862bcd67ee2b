"""Drift: is what is served still like what the classifier was judged on?

Four quantities of the last slices are compared with a reference: the shares of the classes found; and, each among the
reference's slices of the same class, confidence, strangeness, and how far features lie from what was learnt. So a
change of the mix of classes alone does not show in the latter three, as in context-aware drift detection (Cobb & Van
Looveren 2022, arXiv:2203.08644). The test on a model's own scores, by Kolmogorov and Smirnov's distance, is that of
Rabanser, Günnemann & Lipton 2019 (arXiv:1810.11953); the limits are not theirs (serve/reference.py).
"""

import threading
from dataclasses import dataclass

import numpy as np

from serve.reference import QUANTITIES, WINDOW, Reference, by_class, change, ranks_among, shares_of, unevenness
from serve.session import Scores

LEAST = 100  # slices, before anything is said


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
            return f"Too few slices to tell drift: {self.slices} of the {LEAST} that are needed."
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
        self._sorted = by_class(reference.found, reference.values, len(reference.classes))
        self._found = np.empty(window, np.int64)
        self._ranks = np.empty((window, len(QUANTITIES) - 1))
        self._seen = 0
        self._lock = threading.Lock()

    def add(self, scores: Scores) -> None:
        """Note scores; those that are not finite are left out."""
        if not len(scores.strangeness):
            return
        found, values, _ = self.reference.measure(scores)
        ranks = ranks_among(found, values, self._sorted)
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
        before, now = self.reference.shares, shares_of(found, len(self.reference.classes))
        shares = dict(zip(self.reference.classes, zip(now.tolist(), before.tolist(), strict=True), strict=True))
        if slices < LEAST:
            return DriftReport(slices, seen, {}, shares)
        statistics, limits = (change(now, before), *unevenness(ranks)), self.reference.limits_for(slices)
        figures = zip(QUANTITIES, statistics, limits, (0.5, *ranks.mean(axis=0)), strict=True)
        return DriftReport(slices, seen, {name: Quantity(*map(float, own)) for name, *own in figures}, shares)
