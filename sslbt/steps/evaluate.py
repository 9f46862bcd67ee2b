"""`evaluate`: a classifier on patients it never saw, beside controls."""

import numpy as np
from matplotlib.figure import Figure
from scipy.special import softmax

from sslbt.config import Evaluate
from sslbt.data.cache import Cache
from sslbt.data.splits import Split
from sslbt.errors import UserError
from sslbt.evaluation import controls, figures
from sslbt.evaluation.features import logits
from sslbt.evaluation.metrics import Predictions, paired_difference
from sslbt.evaluation.metrics import evaluate as measure
from sslbt.nn.heads import Classifier
from sslbt.steps.common import open_data, refuse_leak
from sslbt.terminal import say
from sslbt.tracking.models import CLASSIFIER, checkpoint_file
from sslbt.tracking.run import Run
from sslbt.training import checkpoint
from sslbt.training.loop import best_device

NAMES = {"encoder": "encoder way", "contrastive": "contrastive way", "scratch": "from scratch"}
HEADLINE = "patient_balanced_accuracy"
PREDICTIONS = "predictions.csv"


def evaluate(cfg: Evaluate, run: Run) -> None:
    """Score every test slice, measure with intervals over patients, and let the controls answer the same test."""
    classifier, about = checkpoint.load_classifier(checkpoint_file(cfg.model, CLASSIFIER))
    cache, split = open_data(cfg, run, tuple(about["classes"]))
    refuse_leak(about["seen"], split, f"model={cfg.model}")
    predictions = judge(classifier, about, cache, split)
    name = NAMES.get(about["way"], about["way"])
    labels = about["labels"]
    run.describe(f"evaluate {name}, {labels} labels", way=about["way"], labels=labels, classifier=cfg.model)

    run.facts(way=about["way"], labels=labels, size=about["size"], temperature=round(about["temperature"], 3))

    scores = measure(predictions, cache.classes)
    run.metrics({f"test/{key}": value for key, value in scores.items()})
    run.table(PREDICTIONS, predictions.table(cache.classes))
    title = f"{name}, {labels} labels, {len(predictions.labels)} unseen slices"
    run.figure(
        "pictures/confusion.png", figures.confusion(predictions.labels, predictions.predicted, cache.classes, title)
    )

    rows = {name: (predictions, scores)}
    for control, answers in control_predictions(cfg, cache, split, predictions, about).items():
        own = measure(answers, cache.classes)
        run.metrics({f"control/{control}/{key}": value for key, value in own.items()})
        rows[control.replace("_", " ")] = (answers, own)
    run.figure("pictures/comparison.png", bars(rows, name, f"{labels} labels, {cfg.split} split"))
    for line in verdicts(rows, name):
        say(line)


def judge(classifier: Classifier, about: dict, cache: Cache, split: Split) -> Predictions:
    """Calibrated predictions of a classifier for the test slices."""
    scores = logits(classifier.to(best_device()), cache.load(split.rows("test"), about["size"]))
    return answers_of(softmax(scores / about["temperature"], axis=1), split)


def answers_of(probabilities: np.ndarray, split: Split) -> Predictions:
    """Probabilities of the test slices with the truth beside them."""
    test = split.table.iloc[split.rows("test")]
    return Predictions(test.label.to_numpy(), probabilities, test.family.to_numpy(str), test.file.to_numpy(str))


def control_predictions(
    cfg: Evaluate, cache: Cache, split: Split, predictions: Predictions, about: dict
) -> dict[str, Predictions]:
    """What the controls answer, by name. Those that learn need the classifier's labelled slices in this data."""
    found = {}
    if cfg.scratch:
        other, scratch = checkpoint.load_classifier(checkpoint_file(cfg.scratch, CLASSIFIER))
        if any(scratch[fact] != about[fact] for fact in ("labelled_files", "classes")) or scratch["way"] != "scratch":
            raise UserError(f"scratch={cfg.scratch}: not the same labels trained from scratch; no fair control")
        refuse_leak(scratch["seen"], split, f"scratch={cfg.scratch}")
        found["from_scratch"] = judge(other, scratch, cache, split)
    if about["data_digest"] != cache.digest:
        say("no controls: the classifier's labelled slices are not in this data")
        return found
    table = split.table.set_index("file", drop=False)
    labelled = np.flatnonzero(split.table.file.isin(about["labelled_files"]))
    labels = table.label.to_numpy()[labelled]
    inputs = (
        cache.load(labelled, about["size"]),
        labels,
        cache.load(split.rows("test"), about["size"]),
        len(cache.classes),
    )
    width = int(about["width"])
    return found | {
        "majority": answers_of(controls.majority(labels, len(predictions.labels), len(cache.classes)), split),
        "raw_pixels": answers_of(controls.raw_pixels(*inputs), split),
        "random_encoder": answers_of(controls.random_encoder(*inputs, width, seed=0), split),
    }


def bars(rows: dict[str, tuple[Predictions, dict]], name: str, title: str) -> Figure:
    """Classifier and controls as bars with intervals."""
    values = [
        (key, own[HEADLINE], own[f"{HEADLINE}_ci_low"], own[f"{HEADLINE}_ci_high"], key != name)
        for key, (_, own) in rows.items()
    ]
    return figures.comparison(values, "balanced accuracy over patients, 95 % interval", title)


def verdicts(rows: dict[str, tuple[Predictions, dict]], name: str) -> list[str]:
    """Each control beside the classifier in words, with the paired interval of the difference."""
    predictions, scores = rows[name]
    low, high = scores[f"{HEADLINE}_ci_low"], scores[f"{HEADLINE}_ci_high"]
    lines = [f"{name}: balanced accuracy over patients {scores[HEADLINE]:.3f} ({low:.3f} to {high:.3f})"]
    for control, (answers, own) in rows.items():
        if control == name:
            continue
        low, high = np.nanpercentile(paired_difference(predictions, answers, HEADLINE), [2.5, 97.5])
        word = "above" if low > 0 else "below" if high < 0 else "not clearly apart from"
        lines.append(f"  {word} {control} ({own[HEADLINE]:.3f}); difference {low:+.3f} to {high:+.3f}")
    return lines
