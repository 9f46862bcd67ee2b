"""What suggested slices are worth beside random ones and a draw balanced by class: the table of docs/suggest.md.

    python benchmarks/suggesting.py DATA ENCODER... [--counts 12,24] [--draws 20]

ENCODER are checkpoints that `pretrain-contrastive` left, each judged on the split it was made with. From the training
part come so many slices, whose true classes a logistic regression on the encoder's frozen features learns, spread to
all slices of the patients chosen: a patient has one class. Draws are seeds. No encoder has seen a test patient.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from ending import in_a_sentence

from sslbt.data.cache import Cache, prepare
from sslbt.data.labels import choose_labels
from sslbt.data.source import Source
from sslbt.data.splits import Split, make_split
from sslbt.evaluation.features import linear_probe
from sslbt.evaluation.suggesting import stand_for_all
from sslbt.steps.common import refuse_leak
from sslbt.steps.suggest import features
from sslbt.training.checkpoint import load_encoder

WAYS = ("random", "balanced by class", "suggested")
FIGURES = ("accuracy", "balanced accuracy", "patients' balanced accuracy")


def choose(way: str, split: Split, seen: np.ndarray, count: int, seed: int, classes: tuple[str, ...]) -> np.ndarray:
    """Row numbers of the slices to label."""
    train = split.rows("train")
    if way == "suggested":
        return train[stand_for_all(seen[train], split.table.family.to_numpy()[train], count, seed)]
    if way == "balanced by class":
        return choose_labels(split, str(count), seed, classes)
    return np.random.default_rng(seed).choice(train, count, replace=False)


def judged(split: Split, seen: np.ndarray, chosen: np.ndarray, part: str) -> tuple[float, float, float]:
    """FIGURES of the regression that learnt from the chosen slices' patients."""
    labels, families = split.table.label.to_numpy(), split.table.family.to_numpy(str)
    learnt = split.rows("train")[np.isin(families[split.rows("train")], families[chosen])]
    rows = split.rows(part)
    probe = linear_probe().fit(seen[learnt], labels[learnt])
    patients = pd.DataFrame(probe.predict_proba(seen[rows]), columns=probe.classes_).groupby(families[rows]).mean()
    truth = pd.Series(labels[rows]).groupby(families[rows]).first()
    right = probe.predict(seen[rows]) == labels[rows]
    return right.mean(), balanced(right, labels[rows]), balanced((patients.idxmax(axis=1) == truth).to_numpy(), truth)


def balanced(right: np.ndarray, labels: np.ndarray) -> float:
    """Mean recall of the classes."""
    return float(pd.Series(right).groupby(np.asarray(labels)).mean().mean())


def of_encoder(cache: Cache, path: Path, counts: list[int], draws: int) -> list[tuple]:
    """Rows of results."""
    encoder, about = load_encoder(path)
    split = make_split(cache.table, about["split"], cache.classes)
    refuse_leak(about["seen"], split, str(path))
    seen = features(encoder, cache, np.arange(len(cache.table)), about["size"])
    rows = []
    for count in counts:
        for way in WAYS:
            for seed in range(draws):
                chosen = choose(way, split, seen, count, seed, cache.classes)
                if split.table.label[chosen].nunique() == 1:
                    continue  # a random draw that nothing can be learnt from
                about_it = count, way, split.name
                rows += [(part, *about_it, *judged(split, seen, chosen, part)) for part in ("validation", "test")]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DATA")
    parser.add_argument("encoders", metavar="ENCODER", nargs="+", type=Path)
    parser.add_argument("--counts", default="12")
    parser.add_argument("--draws", default=20, type=int)
    given = parser.parse_args()
    cache = prepare(Source(given.data))
    counts = [int(count) for count in given.counts.split(",")]
    rows = [row for path in given.encoders for row in of_encoder(cache, path, counts, given.draws)]
    table = pd.DataFrame(rows, columns=["part", "count", "way", "split", *FIGURES])
    by_split = table.groupby(["part", "count", "way", "split"], sort=False)[list(FIGURES)].mean()
    print(by_split.groupby(["part", "count", "way"], sort=False).mean().round(3).to_string())
    print(by_split["accuracy"].unstack().round(3).to_string())


if __name__ == "__main__":
    with in_a_sentence():
        main()
