"""How often drift is told where there is none, and where there is: on real slices of patients that did not train.

    python benchmarks/drift.py DATA CLASSIFIER ...

CLASSIFIER is a checkpoint fine-tuned with split=patient or patient:K. Its validation and test families are mixed;
again and again a part of them is drawn for a reference, and windows from the others: 100 or 300 slices, patients whole
or what there is of a class or plane, as they are and changed. Prints for each kind of window how many slices and
patients it had, the accuracy, and the share of alarms, of classes / of pictures, for a small reference and a larger
one; then what it costs.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from ending import in_a_sentence

from serve.drift import LEAST, Drift
from serve.reference import HANDFUL, SLICES, Reference
from serve.session import Classifier, Scores
from sslbt.data.cache import Cache, prepare
from sslbt.data.plane import PLANES, estimate_planes
from sslbt.data.source import Source
from sslbt.data.splits import make_split, some
from sslbt.evaluation.robustness import changed
from sslbt.export.onnx import Deployed, export
from sslbt.export.smaller import eight_bits
from sslbt.steps.common import refuse_leak
from sslbt.steps.reference import few_of_each, learnt_rows, scores_of
from sslbt.steps.register import raw_slices
from sslbt.training import checkpoint

ROUNDS, WINDOWS = 25, 4  # references drawn, windows for each
SIZES = (100, 300)  # slices of a window
FAMILIES = 20  # that did not train, at least: a reference, and windows of others
LARGE = 2 / 3  # of the families that did not train, for the larger reference; as many as validate for the small one
AS_THEY_ARE = "as they are"
STRENGTHS = {
    "darker (gamma 1.4)": ("contrast", 0.5),
    "darker (gamma 2)": ("contrast", 1),
    "brighter (gamma 0.7)": ("contrast", -0.5),
    "brighter (gamma 0.5)": ("contrast", -1),
    "noise of 0.05 of the range": ("noise", 0.05),
    "noise of 0.1 of the range": ("noise", 0.1),
    "blur of 2 pixels of 256": ("blur", 2),
    "blur of 3 pixels of 256": ("blur", 3),
}
Asked = dict[str, Scores]


def ask(path: Path, small: Path, source: Source, cache: Cache, rows: np.ndarray) -> Asked:
    """Scores of these rows by what was done to the slices."""
    table, pixels, classifier = cache.table.iloc[rows], cache.pixels[rows], Classifier.load(path)

    def scored(pictures: list[np.ndarray], own: Classifier = classifier) -> Scores:
        return scores_of(own, zip(table.file, pictures, strict=True), table)[0]

    raw = dict(raw_slices(source, table))
    files = [raw[name] for name in table.file]
    found = {
        AS_THEY_ARE: scored(files),
        "a tenth as bright, plus 50": scored([own * np.float32(0.1) + 50 for own in files]),
        "as PNG of 256 x 256 and 8 bits": scored(list(pixels)),
        "asked of the file of eight bits": scored(files, Classifier.load(small)),
        "upside down": scored([own[::-1] for own in files]),
    }
    slices = cache.load(rows, pixels.shape[1])
    for name, (change, strength) in STRENGTHS.items():
        found[name] = scored(list(changed(slices, change, strength)[:, 0].numpy()))
    return found


def patients_whole(table: pd.DataFrame, size: int, generator: np.random.Generator) -> np.ndarray:
    """Rows of one patient after another, drawn at random, until there are so many; none where the table has none."""
    families = generator.permutation(table.family.unique())
    rows = [table.index[table.family == name] for name in families]
    return np.concatenate([np.empty(0, int), *rows])[:size]


def handful(table: pd.DataFrame, size: int, generator: np.random.Generator) -> np.ndarray:
    """As many of each of five patients; the same slice may come again. None where fewer have enough to draw from."""
    counts = table.family.value_counts()
    many = counts.index[counts >= SLICES // HANDFUL]
    if len(many) < HANDFUL:
        return np.empty(0, int)
    families = generator.choice(many, HANDFUL, replace=False)
    return np.concatenate([generator.choice(table.index[table.family == name], size // HANDFUL) for name in families])


def windows(table: pd.DataFrame, size: int, kinds: list[str], generator: np.random.Generator) -> dict[str, tuple]:
    """Rows by kind of window, and what is done to them."""
    whole = patients_whole(table, size, generator)
    found = {kind: (kind, whole) for kind in kinds}
    found[f"{HANDFUL} patients, as many slices of each"] = (AS_THEY_ARE, handful(table, size, generator))
    for column, values in (("class", sorted(table["class"].unique())), ("plane", PLANES)):
        for value in values:
            rows = patients_whole(table[table[column] == value], size, generator)
            found[f"{value} only"] = (AS_THEY_ARE, rows)
    return found


def of(scores: Scores, rows: np.ndarray) -> Scores:
    return Scores(scores.probabilities[rows], scores.strangeness[rows], scores.features[rows])


def measure(data: str, path: Path) -> None:
    """Everything about one classifier."""
    model, about = checkpoint.load_classifier(path)
    source = Source(data)
    cache = prepare(source)
    split = make_split(cache.table, about["split"], cache.classes)
    refuse_leak(about["seen"], split, str(path))
    rows, learnt = np.flatnonzero(split.table.part != "train"), cache.table.iloc[learnt_rows(split)]
    if (families := cache.table.family.iloc[rows].nunique()) < FAMILIES:
        raise SystemExit(f"{data}: {families} families that {path} did not train on; windows need {FAMILIES}")
    table = cache.table.iloc[rows].reset_index(drop=True).assign(plane=estimate_planes(cache.pixels[rows]))
    with tempfile.TemporaryDirectory() as folder:
        whole, small = Path(folder, "whole.onnx"), Path(folder, "small.onnx")
        export(Deployed(model, checkpoint.load_outlier(path), about), about, whole)
        eight_bits(whole, small, cache.pixels[some(learnt.index.to_numpy(), 128)])
        asked = ask(whole, small, source, cache, rows)
        known = scores_of(Classifier.load(whole), zip(learnt.file, cache.pixels[learnt.index], strict=True), learnt)

    validating = table.family[split.table.part.iloc[rows].to_numpy() == "validation"].nunique()
    sizes = (validating, round(LARGE * table.family.nunique()))
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    generator = np.random.default_rng(0)
    for _ in range(ROUNDS):
        order = generator.permutation(table.family.unique())
        for count in sizes:
            kept = few_of_each(np.flatnonzero(table.family.isin(order[:count])), table)
            unseen = of(asked[AS_THEY_ARE], kept), table.family.to_numpy()[kept]
            reference = Reference.of(cache.classes, *unseen, *known)
            for size in SIZES * WINDOWS:
                others = table[~table.family.isin(order[:count])]
                for kind, (change, own) in windows(others, size, list(asked), generator).items():
                    if len(own) < LEAST:
                        continue
                    drift = Drift(reference)
                    drift.add(scores := of(asked[change], own))
                    alarms = drift.report().alarms
                    right = scores.probabilities.argmax(axis=1) == table.label.to_numpy()[own]
                    about_window = {"slices": len(own), "patients": table.family[own].nunique()}
                    figures = {"classes": "classes" in alarms, "pictures": bool({*alarms} - {"classes"})}
                    where = {"families": count, "size": size, "accuracy": right.mean()}
                    found[kind].append(about_window | figures | where)
    if not found:
        raise SystemExit(f"{data}: no window comes to {LEAST} slices, and fewer tell no drift; give more of a patient")
    show(path.stem, sizes, found)
    costs(drift, of(asked[AS_THEY_ARE], np.arange(16)))
    print(f"the reference takes {len(reference.to_metadata()):,} characters")


def show(name: str, sizes: tuple[int, ...], found: dict[str, list[dict[str, float]]]) -> None:
    """A table in Markdown."""
    cells = [(count, size) for count in sizes for size in SIZES]
    print(f"\n{name}: alarms in %, classes / pictures, by families of the reference and slices of the window\n")
    print("| window | accuracy | " + " | ".join(f"{count} families, {size} slices" for count, size in cells) + " |")
    print("|---|---|" + "---|" * len(cells))
    for kind, rows in found.items():
        own = pd.DataFrame(rows)
        told = []
        for count, size in cells:
            cell = own[(own.families == count) & (own["size"] == size)]
            rates = f"{100 * cell.classes.mean():.0f} / {100 * cell.pictures.mean():.0f}" if len(cell) else ""
            told.append(f"{rates} ({cell.slices.mean():.0f} of {cell.patients.mean():.0f})" if rates else "")
        print(f"| {kind} | {own.accuracy.mean():.3f} | " + " | ".join(told) + " |")


def costs(drift: Drift, batch: Scores) -> None:
    for name, call in (("adding 16 slices", partial(drift.add, batch)), ("a report", drift.report)):
        began = time.perf_counter()
        for _ in range(200):
            call()
        print(f"{name}: {(time.perf_counter() - began) / 200 * 1e3:.2f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("classifiers", type=Path, nargs="+", metavar="classifier")
    given = parser.parse_args()
    with in_a_sentence():
        for classifier in given.classifiers:
            measure(given.data, classifier.expanduser())
