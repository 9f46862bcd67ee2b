"""What a sweep found, as a picture."""

from collections.abc import Collection

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLUMNS = 3
LOOKS = {
    "finished": {"marker": "o", "color": "#2a6fbb"},
    "pruned": {"marker": "x", "color": "#999999"},  # its score is the one it was given up at
}


def trials(table: pd.DataFrame, names: list[str], logarithmic: Collection[str], score: str) -> Figure:
    """Scores by trial, with the best so far, and against each searched parameter.

    Args:
        table: a row a trial with the columns trial, state, score and one for each parameter.
        names: the searched parameters.
        logarithmic: those of them that are searched by their logarithm.
        score: what the score is called.
    """
    panels = ["trial", *names]
    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(3.6 * min(COLUMNS, len(panels)) + 0.4, 3 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, min(COLUMNS, len(panels)), sharey=True, squeeze=False).ravel()
    for axis, name in zip(axes, panels, strict=False):
        _panel(axis, table, name, name in logarithmic)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    finished = table[table.state == "finished"]
    axes[0].step(
        finished.trial, finished.score.cummax(), where="post", color="#444444", linewidth=1, label="best so far"
    )
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    for axis in axes[:: min(COLUMNS, len(panels))]:
        axis.set_ylabel(score)
    failed = int((table.state == "failed").sum())
    figure.suptitle(f"{len(table)} trials, {failed} of them failed")
    return figure


def _panel(axis: Axes, table: pd.DataFrame, name: str, logarithmic: bool) -> None:
    column, scores = table[name], table.score.to_numpy()
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        places = column.to_numpy()
    else:
        chosen, places = np.unique(column.astype(str), return_inverse=True)
        axis.set_xticks(range(len(chosen)), chosen)
    for state, look in LOOKS.items():
        own = (table.state == state).to_numpy()
        axis.scatter(places[own], scores[own], s=22, label=state, **look)  # type: ignore[arg-type]
    best = np.argmax(np.where(table.state == "finished", scores, -np.inf))
    axis.scatter(places[best], scores[best], s=120, marker="*", color="#d1495b", label="best")
    axis.set_xlabel(name.replace("_", " "))
    if logarithmic:
        axis.set_xscale("log")
    axis.grid(alpha=0.3)
