"""The pictures a run shows."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

from sslbt.evaluation.literal import literal
from sslbt.pretext.masking import Restored

GREY = {"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "nearest"}


def slices_by_class(pixels: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], note: str = "") -> Figure:
    """One row a class, up to eight slices (n, side, side) of it, evenly taken from the set."""
    columns = int(np.bincount(labels[labels >= 0], minlength=1).max().clip(1, 8))
    figure, axes = _grid(len(classes), columns)
    for row, name in enumerate(classes):
        own = np.flatnonzero(labels == row)
        chosen = own[np.linspace(0, len(own) - 1, min(columns, len(own))).astype(int)]
        _row(axes[row], [pixels[i] / 255 for i in chosen])
        _label(axes[row, 0], f"{name}\n{len(own)} slices")
    figure.suptitle(f"Slices by class{note}")
    return literal(figure)


def similar(pixels: np.ndarray, pairs: pd.DataFrame) -> Figure:
    """Pictures (n, side, side) of different patients that show the same, up to eight pairs, one above the other."""
    shown = pairs.head(8)
    figure, axes = _grid(2, len(shown), height=2.1)
    for column, pair in enumerate(shown.itertuples()):
        for row, side in enumerate(("first", "second")):
            axes[row, column].imshow(pixels[getattr(pair, side)], cmap="gray")
            file, patient, part = (getattr(pair, f"{side}_{what}") for what in ("file", "patient", "part"))
            axes[row, column].set_title(f"{file}\n{patient}\n{part}", fontsize="x-small")
    across = int(pairs.leak.sum())
    figure.suptitle(f"{len(pairs)} pairs of different patients show the same; {across} of them across parts")
    return literal(figure)


def restoration(slices: Tensor, result: Restored, epoch: int) -> Figure:
    """Slices as they are, masked, restored, and the restored region set into the picture."""
    seen = {
        "as it is": slices,
        "masked": result.masked,
        "restored": result.restored,
        "filled in": result.masked.where(~result.hidden, result.restored),
    }
    figure, axes = _grid(len(seen), len(slices))
    for row, (name, pictures) in enumerate(seen.items()):
        _row(axes[row], [picture[0].float().cpu().numpy() for picture in pictures])
        _label(axes[row, 0], name)
    figure.suptitle(f"Restoring hidden regions, epoch {epoch + 1}")
    return figure


def pairs(positive: tuple[Tensor, Tensor], negative: tuple[Tensor, Tensor], kind: str) -> Figure:
    """Positive pairs above, negative pairs below, as the network sees them."""
    figure, axes = _grid(4, len(positive[0]))
    names = ("positive\nfirst", "positive\nsecond", "negative\nfirst", "negative\nsecond")
    for row, (name, pictures) in enumerate(zip(names, (*positive, *negative), strict=True)):
        _row(axes[row], [picture[0].float().cpu().numpy() for picture in pictures])
        _label(axes[row, 0], name)
    figure.suptitle(f"Pairs by {kind}")
    return figure


def curves(history: list[dict[str, float]], best: int | None = None) -> Figure:
    """Loss on the left; on the right whatever was measured of accuracy, by epoch, the best one marked."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([1 + i for i in range(len(history))], [metrics["train/loss"] for metrics in history])
    left.set(title="Loss", xlabel="epoch")
    for name in sorted({name for metrics in history for name in metrics if "accuracy" in name}):
        known = [(1 + i, metrics[name]) for i, metrics in enumerate(history) if name in metrics]
        right.plot(*zip(*known, strict=True), marker=".", label=name)
    right.set(title="Accuracy", xlabel="epoch", ylim=(0, 1))
    if best is not None:
        right.axvline(best + 1, color="#888888", linestyle=":", label="best by the probe")
    if right.lines:
        right.legend(fontsize="small")
    for axis in (left, right):
        axis.grid(alpha=0.3)
    return figure


def embedding(features: np.ndarray, labels: np.ndarray, families: np.ndarray, classes: tuple[str, ...]) -> Figure:
    """Slices by the likeness of their features (n, channels), t-SNE, coloured by class and by patient family.

    Clumps of one colour on the right and none on the left: the encoder has learnt who the patients are.
    """
    places = _places(features)
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    by_class, by_family = figure.subplots(1, 2)
    for number, name in enumerate(classes):
        by_class.scatter(*places[labels == number].T, s=9, label=name)
    by_class.legend(fontsize="small", markerscale=2)
    by_class.set_title("by class")
    family = np.unique(families, return_inverse=True)[1]
    by_family.scatter(*places.T, s=9, c=family, cmap="turbo")
    by_family.set_title(f"by patient ({family.max() + 1} families)")
    for axis in (by_class, by_family):
        axis.set(xticks=[], yticks=[])
    figure.suptitle(f"Features of {len(features)} validation slices (t-SNE)")
    return literal(figure)


def _places(features: np.ndarray) -> np.ndarray:
    if len(np.unique(features, axis=0)) < 3:  # t-SNE can't place what is all alike
        return np.zeros((len(features), 2))
    reduced = PCA(min(50, *features.shape), random_state=0).fit_transform(features)
    return TSNE(perplexity=min(30.0, (len(features) - 1) / 3), init="pca", random_state=0).fit_transform(reduced)


def comparison(rows: Sequence[tuple[str, float, float, float, bool]], metric: str, title: str) -> Figure:
    """Bars with intervals, best on top: (name, value, low, high, whether it is a control)."""
    ordered = sorted(rows, key=lambda row: row[1])
    figure = Figure(figsize=(8, 0.5 * len(rows) + 1.4), layout="constrained")
    axis = figure.subplots()
    for place, (_, value, low, high, control) in enumerate(ordered):
        error = [[max(0.0, value - low)], [max(0.0, high - value)]]
        axis.barh(place, value, xerr=error, color="#b8b8b8" if control else "#2a6fbb", ecolor="#444444", capsize=3)
        axis.text(0.01, place, f"{value:.3f}", va="center", fontsize="small", color="black" if control else "white")
    axis.set(
        yticks=range(len(ordered)), yticklabels=[row[0] for row in ordered], xlim=(0, 1), xlabel=metric, title=title
    )
    axis.grid(axis="x", alpha=0.3)
    return literal(figure)


def _grid(rows: int, columns: int, height: float = 1.55) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(1.5 * columns + 1, height * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


def _row(axes: np.ndarray, pictures: list[np.ndarray]) -> None:
    for axis, picture in zip(axes, pictures, strict=False):
        axis.imshow(picture, **GREY)


def _label(axis: Axes, name: str) -> None:
    axis.text(-0.08, 0.5, name, transform=axis.transAxes, ha="right", va="center", fontsize="small")
