"""`evaluate`: a classifier on patients it never saw: how good beside controls, how sure, by what, where it fails."""

import numpy as np
import pandas as pd
from scipy.special import softmax

from sslbt.config import Evaluate
from sslbt.data.normalise import SIDE
from sslbt.data.plane import estimate_planes
from sslbt.evaluation import answering, groups, outliers, robustness
from sslbt.evaluation.localisation import centre_prior, localisation_table
from sslbt.evaluation.metrics import evaluate as measure
from sslbt.evaluation.results import Answering, Results, Shown
from sslbt.evaluation.saliency import random_weights, saliency
from sslbt.report.evaluation import evaluation_report
from sslbt.steps import told
from sslbt.steps.common import open_data, refuse_leak
from sslbt.steps.controls import beside
from sslbt.steps.judge import Judge
from sslbt.terminal import say
from sslbt.tracking.models import CLASSIFIER, checkpoint_file
from sslbt.tracking.run import Run
from sslbt.training import checkpoint
from sslbt.training.loop import best_device

WORST, EXAMPLES = 16, 8  # slices shown


def evaluate(cfg: Evaluate, run: Run) -> None:
    """Ask a classifier about every test slice, and everything a reader would ask about its answers.

    What takes long (spoilt and changed pictures, saliency) is done on at most `judge.LOOKED_INTO` slices.
    """
    file = checkpoint_file(cfg.model, CLASSIFIER)
    classifier, about = checkpoint.load_classifier(file)
    cache, split = open_data(cfg, run, tuple(about["classes"]))
    refuse_leak(about["seen"], split, f"model={cfg.model}")
    judge = Judge(classifier.to(best_device()), about, cache, split)
    tags = {"way": about["way"], "labels": about["labels"], "classifier": about["run_id"]}
    run.describe(f"evaluate {judge.name}, {about['labels']} labels", **tags)
    run.facts(way=about["way"], labels=about["labels"], size=judge.size, temperature=round(about["temperature"], 3))

    whose = f", {cache.unknown_patients} of them of unknown patients" if cache.unknown_patients else ""
    say(f"{len(judge.rows)} test slices of {judge.table(judge.rows).family.nunique()} patient families{whose}")
    metrics = measure(judge.predictions, cache.classes)
    say("controls")
    controls = beside(cfg, judge)
    say("what is no brain MRI")
    strangers = outliers.acceptance(checkpoint.load_outlier(file), cache.pixels[judge.few], seed=0)
    say("robustness")
    worse = robustness.curve(judge.probabilities, cache.load(judge.few, SIDE), *truth(judge))
    say("where it looks")
    results = Results(
        classes=cache.classes,
        predictions=judge.predictions,
        uncalibrated=softmax(judge.logits, axis=1),
        metrics=metrics,
        controls=controls,
        answering=answers(judge),
        outliers=strangers,
        groups=groups.by_group(judge.predictions, with_planes(judge)),
        robustness=worse,
        saliency=where_it_looks(judge),
        worst=shown(judge, groups.worst(judge.predictions, WORST)),
        examples=shown(judge, examples(judge)),
    )
    told.log(results, judge, run)
    run.page("report.html", evaluation_report(results, told.about(cfg, judge, run)))
    for line in told.verdicts(results, judge.name):
        say(line)
    say(f"report.html in the run {run.id} shows all of it")


def truth(judge: Judge) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label, family and file of the slices that are looked into."""
    table = judge.table(judge.few)
    return table.label.to_numpy(), table.family.to_numpy(str), table.file.to_numpy(str)


def with_planes(judge: Judge) -> pd.DataFrame:
    """The table of the test slices; planes that no file names are estimated, and say so (phantoms are too plain)."""
    table = judge.table(judge.rows)
    if judge.cache.synthetic:
        return table
    estimated = pd.Series(estimate_planes(judge.cache.pixels[judge.rows]), table.index)
    estimated = estimated.where(estimated == "", estimated + ", estimated")
    return table.assign(plane=table.plane.where(table.plane != "", estimated))


def answers(judge: Judge) -> Answering:
    """When it answers on this test, and how right it is then."""
    given, threshold = judge.predictions, judge.about["plausible_above"]
    plausible = answering.sets(given.probabilities, threshold)
    alone = plausible.sum(axis=1) == 1
    right = given.predicted == given.labels
    held = plausible[np.arange(len(right)), given.labels]
    return Answering(
        level=judge.about["guarantee"],
        threshold=threshold,
        patients=judge.about["validation_families"],
        covered=answering.over_patients(held, given.families),
        answered=float(alone.mean()),
        accuracy=float(right[alone].mean()) if alone.any() else float("nan"),
        curve=answering.curve(given),
    )


def where_it_looks(judge: Judge) -> pd.DataFrame:
    """How often saliency lies in the tumour, beside the middle of the picture and the network before any training."""
    rows = judge.few[judge.table(judge.few).tumour.notna().to_numpy()]
    slices, table, maps = judge.slices(rows), judge.table(rows), {}
    if len(rows):
        predicted = judge.probabilities(slices).argmax(axis=1)
        middle = np.broadcast_to(centre_prior(judge.size), (len(rows), judge.size, judge.size))
        maps["this classifier"] = saliency(judge.classifier, slices, predicted)
        maps["middle of the picture"] = middle
        maps["untrained network"] = random_weights(judge.classifier, slices, predicted)
    labels, families = table.label.to_numpy(), table.family.to_numpy(str)
    return localisation_table(maps, judge.cache.masks(rows), labels, judge.cache.classes, families)


def examples(judge: Judge) -> np.ndarray:
    """Places of right answers among the test slices, of each class as many, of other patients where there are."""
    right = pd.DataFrame({"label": judge.predictions.labels, "family": judge.predictions.families})
    right = right[judge.predictions.predicted == judge.predictions.labels]
    each = -(-EXAMPLES // max(1, right.label.nunique()))
    first = right.assign(turn=right.groupby(["label", "family"]).cumcount())
    order = first.sort_values(["turn", "family"], kind="stable").groupby("label").head(each)
    return order.index.to_numpy()


def shown(judge: Judge, places: np.ndarray) -> list[Shown]:
    """These test slices with what spoke for the predicted class and where the tumour is."""
    if not len(places):
        return []
    rows, given = judge.rows[places], judge.predictions
    maps = saliency(judge.classifier, judge.slices(rows), given.predicted[places])
    masks = judge.cache.masks(rows)
    return [
        Shown(
            file=given.files[place],
            family=given.families[place],
            truth=int(given.labels[place]),
            probabilities=given.probabilities[place],
            pixels=judge.cache.pixels[row],
            saliency=map_,
            mask=mask if mask.any() else None,
        )
        for place, row, map_, mask in zip(places, rows, maps, masks, strict=True)
    ]
