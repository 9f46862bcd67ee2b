"""The charts of an evaluation: small ones, which a page sets side by side or one below the other."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from sslbt.evaluation.literal import literal
from sslbt.evaluation.metrics import Predictions
from sslbt.evaluation.results import HEADLINE, Answering, Control, Metrics

INK, QUIET, PALE, LINE = "#1d2125", "#5d656d", "#959da5", "#b4b9be"
TEAL, AMBER = "#2a7f88", "#b87514"
CLASSES = (TEAL, AMBER, "#6a5a9e", "#a34a5c", "#5f7f35", "#3f6cae")  # lines of classes, in turn
SHARES = LinearSegmentedColormap.from_list("shares", ("#e9eced", TEAL))
BINS = 10


def forest(name: str, metrics: Metrics, controls: list[Control], chance: float) -> Figure:
    """The headline figure of the classifier and, best first, of the controls, with intervals; chance as a line."""
    below = sorted(controls, key=lambda control: -control.metrics[HEADLINE])
    rows = [(name, metrics, TEAL), *((control.name, control.metrics, QUIET) for control in below)]
    figure, axis = _chart(5.2, 0.34 * len(rows) + 0.75)
    for place, (_, own, colour) in enumerate(rows):
        value = own[HEADLINE]
        axis.plot([own[f"{HEADLINE}_ci_low"], own[f"{HEADLINE}_ci_high"]], [place, place], color=colour, linewidth=2)
        axis.plot(value, place, "o", color=colour, markersize=7 if colour == TEAL else 5)
    axis.axvline(chance, color=LINE, linestyle=":", linewidth=1)
    axis.axvline(metrics[HEADLINE], color=TEAL, linewidth=0.8, alpha=0.4)
    axis.set(yticks=range(len(rows)), yticklabels=[row[0] for row in rows], xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5))
    axis.set_xlabel("balanced accuracy over patients (dotted: chance)")
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    return literal(figure)


def differences(table: pd.DataFrame, metric: str) -> Figure:
    """What evaluations have more of `metric` than the first of them, with intervals; zero as a line.

    Args:
        table: name, difference, difference_ci_low, difference_ci_high of the first, which has none, and the others.
        metric: its name.
    """
    first, others = table.name.iloc[0], table.iloc[1:]
    figure, axis = _chart(5.2, 0.34 * len(others) + 0.75)
    for place, row in enumerate(others.to_dict("records")):
        axis.plot([row["difference_ci_low"], row["difference_ci_high"]], [place, place], color=TEAL, linewidth=2)
        axis.plot(row["difference"], place, "o", color=TEAL, markersize=6)
    axis.axvline(0, color=LINE, linestyle=":", linewidth=1)
    axis.set(yticks=range(len(others)), yticklabels=others.name, ylim=(len(others) - 0.5, -0.5))
    axis.set_xlabel(f"{metric.replace('_', ' ')}, more than {first}")
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    return literal(figure)


def confusion(predictions: Predictions, classes: tuple[str, ...], what: str) -> Figure:
    """How many of each true class (rows) were taken for which (columns), with their share of the row."""
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (predictions.labels, predictions.predicted), 1)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    side = 1.5 + 0.75 * len(classes)
    figure, axis = _chart(side, side - 0.4)
    axis.imshow(shares, cmap=SHARES, vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.6 else INK
        axis.text(column, row - 0.1, f"{count:,}", ha="center", va="center", color=colour, fontsize=11)
        axis.text(column, row + 0.22, f"{shares[row, column]:.0%}", ha="center", va="center", color=colour, fontsize=7)
    ticks = range(len(classes))
    axis.set(xticks=ticks, yticks=ticks, xticklabels=classes, xlabel="predicted", ylabel="true")
    axis.set_yticklabels(classes, rotation=90, va="center")
    axis.set_title(what, fontsize=9, color=QUIET)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return literal(figure)


def reliability(predictions: Predictions, uncalibrated: np.ndarray) -> Figure:
    """Share of right answers by stated probability, before and after calibration; below, how often each is stated.

    On the dotted line, probabilities mean what they say (Guo et al. 2017, fig. 1). Dots grow with their slices.
    """
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    above.plot([0, 1], [0, 1], color=LINE, linestyle=":", linewidth=1)
    before = Predictions(predictions.labels, uncalibrated, predictions.families, predictions.files)
    for one, name, colour in ((before, "before", PALE), (predictions, "after calibration", TEAL)):
        stated, right, count = by_confidence(one)
        above.plot(stated, right, color=colour, linewidth=1.2)
        above.scatter(stated, right, 12 + 110 * count / count.sum(), color=colour, label=name, zorder=3)
    below.hist(predictions.probabilities.max(axis=1), np.linspace(0, 1, BINS + 1).tolist(), color=TEAL, rwidth=0.85)
    above.set(xlim=(0, 1.03), ylim=(0, 1.04), ylabel="share that is right")
    below.set(xlabel="probability of the predicted class", ylabel="slices")
    legend = above.legend(frameon=False, fontsize=8, loc="upper left")
    for handle in legend.legend_handles:
        handle.set_sizes([30])
    for axis in (above, below):
        _plain(axis)
    return figure


def by_confidence(predictions: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean probability of the predicted class, share that is right, and slices, by bins of that probability."""
    confidence = predictions.probabilities.max(axis=1)
    number = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(number, minlength=BINS)
    held = counts > 0
    right = np.bincount(number, predictions.predicted == predictions.labels, BINS)
    return (np.bincount(number, confidence, BINS)[held] / counts[held], right[held] / counts[held], counts[held])


def risk_coverage(answering: Answering) -> Figure:
    """Accuracy among the surest slices by their share, with its interval; the dot: slices with one class in the set."""
    curve = answering.curve
    figure, axis = _chart(4.2, 3)
    _banded(axis, curve.coverage, curve.accuracy, curve.accuracy_ci_low, curve.accuracy_ci_high)
    if answering.answered > 0:
        label = f"with one class in the set: {answering.answered:.0%}, {answering.accuracy:.0%} of them right"
        axis.plot(answering.answered, answering.accuracy, "o", color=AMBER, markersize=7, label=label)
        axis.legend(frameon=False, fontsize=8, loc="lower left", handletextpad=0)
    axis.set(xlim=(0, 1.02), ylim=(min(0.5, float(curve.accuracy_ci_low.min())), 1.02))
    axis.set(xlabel="share of slices that is answered, the surest first", ylabel="accuracy")
    return figure


def robustness(table: pd.DataFrame) -> dict[str, Figure]:
    """Balanced accuracy by strength, with its interval, one small chart a change; dotted: the slices as they are."""
    lowest = max(0.0, float(table.balanced_accuracy_ci_low.min()) - 0.05)
    found = {}
    for change, own in table.groupby("change", sort=False):
        figure, axis = _chart(2.7, 1.9)
        places = np.arange(len(own))
        low, high = own.balanced_accuracy_ci_low, own.balanced_accuracy_ci_high
        _banded(axis, places, own.balanced_accuracy, low, high, marker="o")
        for value in own.balanced_accuracy[own.strength == 0]:
            axis.axhline(value, color=QUIET, linestyle=":", linewidth=1)
        strengths = [f"{strength:g}" for strength in own.strength]
        axis.set(xticks=places, xticklabels=strengths, xlim=(-0.2, len(own) - 0.8), ylim=(lowest, 1))
        found[str(change)] = figure
    return found


def roc(predictions: Predictions, classes: tuple[str, ...], what: str) -> Figure:
    """Sensitivity by false positive rate of each class against the rest."""
    figure, axis = _chart(3.75, 3.3)
    axis.plot([0, 1], [0, 1], color=LINE, linestyle=":", linewidth=1)
    for index, name in enumerate(classes):
        own = predictions.labels == index
        if 0 < own.sum() < len(own):
            false, true, _ = roc_curve(own, predictions.probabilities[:, index])
            axis.plot(false, true, color=CLASSES[index % len(CLASSES)], linewidth=1.5, label=name)
    axis.set(xlim=(-0.01, 1), ylim=(0, 1.01), xlabel="1 − specificity", ylabel="sensitivity")
    axis.set_title(what, fontsize=9, color=QUIET)
    if len(axis.lines) > 1:
        axis.legend(frameon=False, fontsize=8, loc="lower right")
    return literal(figure)


def _chart(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axis = figure.subplots()
    _plain(axis)
    return figure, axis


def _plain(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(LINE)
    axis.tick_params(labelsize=8, colors=QUIET, labelcolor=INK)
    for label in (axis.xaxis.label, axis.yaxis.label):
        label.set(fontsize=9, color=QUIET)


def _banded(axis: Axes, places: object, values: pd.Series, low: pd.Series, high: pd.Series, marker: str = "") -> None:
    axis.fill_between(places, low, high, color=TEAL, alpha=0.18, linewidth=0)  # type: ignore[arg-type]
    axis.plot(places, values, color=TEAL, linewidth=1.5, marker=marker, markersize=4)  # type: ignore[arg-type]
