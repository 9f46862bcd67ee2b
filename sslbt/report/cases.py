"""Slices to look at: what the classifier made of them, and what spoke for it."""

from dataclasses import dataclass

import numpy as np

from sslbt.evaluation.results import Shown
from sslbt.report.page import Picture, overlay

SIDE = 144  # of a slice on the page
BARS = 4  # classes shown of it


@dataclass(frozen=True)
class Bar:
    """The probability of a class."""

    name: str
    value: str
    width: int  # in percent
    kind: str  # right: the true class; wrong: what it was taken for; other


@dataclass(frozen=True)
class Case:
    """A slice to look at, as the page shows it."""

    pictures: list[Picture]
    title: str
    bars: list[Bar]
    caption: str


def case(shown: Shown, classes: tuple[str, ...]) -> Case:
    """A slice with its tumour outlined; what spoke for the answer; the likeliest classes, and the true one always."""
    taken = int(shown.probabilities.argmax())
    right = taken == shown.truth
    order = [int(index) for index in np.argsort(-shown.probabilities, kind="stable")[:BARS]]
    if shown.truth not in order:
        order[-1] = shown.truth

    def bar(index: int) -> Bar:
        kind = "right" if index == shown.truth else "wrong" if index == taken else "other"
        return Bar(classes[index], f"{shown.probabilities[index]:.2f}", round(100 * shown.probabilities[index]), kind)

    outlined = ", the tumour outlined" if shown.mask is not None else ""
    pictures = [overlay(shown.pixels, shown.mask, None, f"{shown.file}{outlined}", SIDE)]
    if shown.saliency is not None:
        alt = f"{shown.file}: what spoke for {classes[taken]}"
        pictures.append(overlay(shown.pixels, shown.mask, shown.saliency, alt, SIDE))
    title = classes[taken] if right else f"{classes[shown.truth]}, taken for {classes[taken]}"
    return Case(pictures, title, [bar(index) for index in order], f"{shown.file}, patient {shown.family}")
