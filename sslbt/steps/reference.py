"""Storing with an exported classifier what slices of unseen patients give, to compare with what is served later."""

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd

from serve.drift import KEY, LEAST_FAMILIES, SLICES, Reference
from serve.session import Classifier, Scores
from sslbt.data.cache import Cache
from sslbt.data.splits import Split, some
from sslbt.terminal import say

LEARNT, UNSEEN = 500, 1000  # slices asked at most
BATCH = 64  # of them in memory at a time

Named = Iterable[tuple[str, np.ndarray]]


def store_reference(
    path: Path, about: dict[str, Any], cache: Cache, split: Split, raw: Callable[[pd.DataFrame], Named]
) -> None:
    """Put a reference into an ONNX file's metadata, or say why there is none.

    Args:
        path: the file, which is written anew.
        about: what the classifier's checkpoint says.
        cache: the data.
        split: of the data.
        raw: name and pixels (height, width), as they would be served, of the slices of these rows of the cache.
    """
    unseen, learnt = cache.table.iloc[unseen_rows(split, about)], some(split.rows("train"), LEARNT)
    families = unseen.family.nunique()
    if not len(learnt) or families < LEAST_FAMILIES:
        say(
            f"no reference for drift is stored: {families} families did not train, {len(learnt)} slices did; it needs "
            f"{LEAST_FAMILIES} families and slices that trained"
        )
        return
    classifier = Classifier.load(path)
    names, scores = scores_of(classifier, raw(unseen))
    family_of = dict(zip(unseen.file, unseen.family, strict=True))
    _, known = scores_of(classifier, zip(cache.table.file.iloc[learnt], cache.pixels[learnt], strict=True))
    own = np.array([family_of[name] for name in names])
    reference = Reference.of(classifier.classes, scores, own, known.features)

    model = onnx.load(path)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, facts | {KEY: reference.to_metadata()})
    onnx.save_model(model, path)
    say(f"a reference for drift is stored: {len(unseen)} slices of {families} families that did not train")


def unseen_rows(split: Split, about: dict[str, Any]) -> np.ndarray:
    """Slices of families that the classifier did not learn from, few enough of each that none is the measure of all.

    The test slices and, where the split is that of the training, the validation slices.
    """
    parts = ["test", "validation"] if split.hash == about["split_hash"] else ["test"]
    table = split.table
    apart = table.part.isin(parts) & ~table.family.isin(table.family[table.part == "train"])
    of_families = pd.Series(np.flatnonzero(apart)).groupby(table.family[apart].to_numpy())
    rows = [some(own.to_numpy(), SLICES) for _, own in of_families]
    return some(np.sort(np.concatenate([np.empty(0, int), *rows])), UNSEEN)


def scores_of(classifier: Classifier, named: Named) -> tuple[list[str], Scores]:
    """Names and scores of slices, few of which are in memory at a time."""
    slices, names, parts = iter(named), [], []
    while batch := list(islice(slices, BATCH)):
        names += [name for name, _ in batch]
        parts.append(classifier.scores([pixels for _, pixels in batch]))
    return names, Scores(
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.strangeness for part in parts]),
        np.concatenate([part.features for part in parts]),
    )
