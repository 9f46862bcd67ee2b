"""How sure a classifier was of many pictures."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from sslbt.evaluation.charts import LINE, TEAL
from sslbt.evaluation.literal import literal

COLUMNS = 3


def confidence(counts: Mapping[str, np.ndarray], title: str) -> Figure:
    """Slices of each class by confidence, those answered below and those abstained on above them.

    Args:
        counts: for each class, (2, bins) of answered and abstained slices, by confidence from 0 to 1.
        title: what was scored.
    """
    columns = min(COLUMNS, len(counts))
    rows = -(-len(counts) // columns)
    figure = Figure(figsize=(2.9 * columns + 0.4, 2.4 * rows + 0.7), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    for axis, (name, (answered, abstained)) in zip(axes, counts.items(), strict=False):
        width = 1 / len(answered)
        middle = (np.arange(len(answered)) + 0.5) * width
        axis.bar(middle, answered, 0.9 * width, color=TEAL, label="answered")
        axis.bar(middle, abstained, 0.9 * width, bottom=answered, color=LINE, label="abstained")
        axis.set_title(f"{name}: {answered.sum() + abstained.sum():,}", fontsize="medium")
        axis.set(xlim=(0, 1), ylim=(0, max(1, 1.05 * (answered + abstained).max())))
        axis.locator_params(axis="y", integer=True, nbins=5)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel("confidence")
    for axis in axes[len(counts) :]:
        axis.set_axis_off()
    for axis in axes[::columns]:
        axis.set_ylabel("slices")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small")
    figure.suptitle(title)
    return literal(figure)
