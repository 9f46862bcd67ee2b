import io

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from sslbt.evaluation import charts, figures, score_figure
from sslbt.evaluation.metrics import Predictions
from sslbt.evaluation.results import HEADLINE, Control
from sslbt.pretext.masking import Restored

CLASSES = ("meningioma", "glioma", "pituitary")


def drawn(figure: Figure) -> Figure:
    """It can be written."""
    figure.savefig(io.BytesIO(), dpi=20)
    return figure


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def pictures(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for axis in figure.axes for image in axis.get_images()]


def test_slices_stand_in_the_row_of_their_class() -> None:
    labels = np.array([0] * 20 + [1] * 3)
    pixels = np.arange(23, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    figure = drawn(figures.slices_by_class(pixels, labels, CLASSES, " of a test"))
    shown = [round(float(picture[0, 0]) * 255) for picture in pictures(figure)]
    assert shown == [0, 2, 5, 8, 10, 13, 16, 19, 20, 21, 22]
    assert texts(figure) == ["meningioma\n20 slices", "glioma\n3 slices", "pituitary\n0 slices"]


def test_there_are_no_more_columns_than_slices_of_a_class() -> None:
    labels = np.array([0, 1, 1, 1, 2, -1, -1, -1, -1])
    figure = figures.slices_by_class(np.zeros((9, 4, 4)), labels, CLASSES)
    assert len(figure.axes) == 3 * len(CLASSES)


def test_what_was_restored_is_set_into_the_picture() -> None:
    slices, restored = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    hidden = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    hidden[:, :, 1:3, 1:3] = True
    result = Restored(slices.masked_fill(hidden, 0.5), hidden, restored)
    figure = drawn(figures.restoration(slices, result, epoch=4))
    assert texts(figure) == ["as it is", "masked", "restored", "filled in"]
    assert [picture.mean() for picture in pictures(figure)[::2]] == [0, 0.125, 1, 0.25]
    assert "epoch 5" in figure.get_suptitle()


def test_pairs_stand_one_above_the_other() -> None:
    sides = [torch.full((3, 1, 4, 4), value) for value in (0.1, 0.2, 0.3, 0.4)]
    figure = drawn(figures.pairs((sides[0], sides[1]), (sides[2], sides[3]), "patient"))
    assert [float(picture[0, 0]) for picture in pictures(figure)] == pytest.approx(
        [0.1] * 3 + [0.2] * 3 + [0.3] * 3 + [0.4] * 3
    )


def test_curves_show_whatever_was_measured_of_accuracy_at_its_epochs() -> None:
    history = [{"train/loss": 3.0, "probe/knn_balanced_accuracy": 0.5}, {"train/loss": 2.0}, {"train/loss": 1.0}]
    history[2]["probe/knn_balanced_accuracy"] = 0.7
    left, right = drawn(figures.curves(history)).axes
    assert left.lines[0].get_xydata().tolist() == [[1, 3], [2, 2], [3, 1]]
    assert [line.get_label() for line in right.lines] == ["probe/knn_balanced_accuracy"]
    assert right.lines[0].get_xydata().tolist() == [[1, 0.5], [3, 0.7]]


def test_curves_without_any_accuracy() -> None:
    assert drawn(figures.curves([{"train/loss": 1.0}])).axes[1].lines[:] == []


def test_curves_mark_the_best_epoch() -> None:
    history = [{"train/loss": 3.0, "probe/linear_balanced_accuracy": share} for share in (0.5, 0.7, 0.6)]
    right = drawn(figures.curves(history, best=1)).axes[1]
    mark = right.lines[1]
    assert (mark.get_label(), list(mark.get_xdata())) == ("best by the probe", [2, 2])
    assert [text.get_text() for text in right.get_legend().get_texts()] == [
        "probe/linear_balanced_accuracy",
        "best by the probe",
    ]


@pytest.mark.parametrize("count", [5, 6, 120])
def test_an_embedding_shows_every_labelled_slice_by_class_and_all_by_family(count: int) -> None:
    features = np.random.default_rng(0).normal(size=(count, 8))
    labels = np.arange(count) % 4 - 1  # -1 is unlabelled
    families = np.array([f"P{row // 2}" for row in range(count)])
    by_class, by_family = drawn(figures.embedding(features, labels, families, CLASSES)).axes
    counts = [len(points.get_offsets()) for points in by_class.collections]
    assert counts == [int((labels == number).sum()) for number in range(3)]
    assert [text.get_text() for text in by_class.get_legend().get_texts()] == list(CLASSES)
    (everybody,) = by_family.collections
    assert everybody.get_offsets().shape == (count, 2)
    assert np.isfinite(everybody.get_offsets()).all()
    assert len(set(everybody.get_array().tolist())) == (count + 1) // 2
    assert by_family.get_title() == f"by patient ({(count + 1) // 2} families)"


def test_slices_that_are_alike_lie_together_in_an_embedding() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 2
    features = generator.normal(0, 1, (60, 8)) + 20 * labels[:, None]
    by_class, _ = figures.embedding(features, labels, labels, ("a", "b")).axes
    first, second = (np.asarray(points.get_offsets()) for points in by_class.collections)
    centres = first.mean(axis=0), second.mean(axis=0)
    for points, own, other in ((first, *centres), (second, *centres[::-1])):
        assert (np.linalg.norm(points - own, axis=1) < np.linalg.norm(points - other, axis=1)).all()


def test_the_best_stands_on_top_with_its_interval() -> None:
    rows = [("a", 0.5, 0.4, 0.6, True), ("b", 0.9, 0.8, 0.9, False), ("c", 0.7, 0.7, 0.8, True)]
    axis = drawn(figures.comparison(rows, "accuracy", "a title")).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "c", "b"]
    assert [patch.get_width() for patch in axis.patches] == [0.5, 0.7, 0.9]
    ends = [container.errorbar.lines[2][0].get_segments()[0][:, 0].tolist() for container in axis.containers[1::2]]
    assert ends == [pytest.approx(row[2:4]) for row in (rows[0], rows[2], rows[1])]


@pytest.mark.parametrize("features", [np.ones((40, 8)), np.repeat([[1.0, 0], [0, 1]], 20, axis=0), np.ones((1, 8))])
def test_collapsed_features_have_a_map_too(features: np.ndarray) -> None:
    labels = np.arange(len(features)) % 2
    drawn(figures.embedding(features, labels, labels, ("a", "b")))  # t-SNE itself ends the process


def test_dollars_in_names_are_no_formula() -> None:
    """ "$_$" is none that matplotlib can read: wherever a name stands, it would end the drawing."""
    bad = ("a $_$", "b")
    labels, names = np.array([0, 1] * 3), np.array([f"{place} $_$" for place in range(6)])
    predictions = Predictions(labels, np.eye(2)[labels], names, names)
    metrics = {f"{HEADLINE}{end}": 0.5 for end in ("", "_ci_low", "_ci_high")}
    control = Control(bad[0], "", metrics, (0, 0))
    gaps = pd.DataFrame({"name": bad, "difference": 0.1, "difference_ci_low": 0.0, "difference_ci_high": 0.2})
    pair = {f"{side}_{what}": bad[0] for side in ("first", "second") for what in ("file", "patient", "part")}
    pairs = pd.DataFrame([pair | {"first": 0, "second": 1, "leak": True}])
    counts = {name: np.ones((2, 10), int) for name in bad}
    for figure in (
        figures.slices_by_class(np.zeros((6, 4, 4)), labels, bad),
        figures.similar(np.zeros((6, 4, 4)), pairs),
        figures.embedding(np.eye(6), labels, names, bad),
        figures.comparison([(bad[0], 0.5, 0.4, 0.6, False)], "accuracy", bad[0]),
        charts.confusion(predictions, bad, bad[0]),
        charts.roc(predictions, bad, bad[0]),
        charts.forest(bad[0], metrics, [control], 0.5),
        charts.differences(gaps, "accuracy"),
        score_figure.confidence(counts, bad[0]),
    ):
        assert "$_$" in " ".join(text.get_text() for text in drawn(figure).findobj(Text))
