"""Storing with an exported classifier what slices of unseen patients give, to compare with what is served later."""

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd

from serve.reference import KEY, LEAST_FAMILIES, SLICES, Reference
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
    unseen, learnt = (cache.table.iloc[rows] for rows in (unseen_rows(split, about), learnt_rows(split)))
    families, trained = unseen.family.nunique(), learnt.family.nunique()
    if min(families, trained) < LEAST_FAMILIES:
        say(
            f"no reference for drift is stored: {families} families did not train, {trained} did; it needs "
            f"{LEAST_FAMILIES} of each"
        )
        return
    classifier = Classifier.load(path)
    own = scores_of(classifier, raw(unseen), unseen)
    known = scores_of(classifier, zip(learnt.file, cache.pixels[learnt.index], strict=True), learnt)
    reference = Reference.of(classifier.classes, *own, *known)

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
    return some(few_of_each(np.flatnonzero(apart), table), UNSEEN)


def learnt_rows(split: Split) -> np.ndarray:
    """Training slices, likewise."""
    return some(few_of_each(split.rows("train"), split.table), LEARNT)


def few_of_each(rows: np.ndarray, table: pd.DataFrame) -> np.ndarray:
    """Of these rows at most `SLICES` of each family, evenly picked."""
    of_families = pd.Series(rows).groupby(table.family.to_numpy()[rows])
    return np.sort(np.concatenate([np.empty(0, int), *(some(own.to_numpy(), SLICES) for _, own in of_families)]))


def scores_of(classifier: Classifier, named: Named, table: pd.DataFrame) -> tuple[Scores, np.ndarray]:
    """Scores of slices, few of which are in memory at a time, and whose they are by the table's file and family."""
    family_of = dict(zip(table.file, table.family, strict=True))
    slices, names, parts = iter(named), [], []
    while batch := list(islice(slices, BATCH)):
        names += [name for name, _ in batch]
        parts.append(classifier.scores([pixels for _, pixels in batch]))
    scores = Scores(
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.strangeness for part in parts]),
        np.concatenate([part.features for part in parts]),
    )
    return scores, np.array([family_of[name] for name in names])
