"""What an evaluation leaves in its run and says at the terminal."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import PurePath

import numpy as np
import pandas as pd

from sslbt.config import Evaluate
from sslbt.evaluation import answering, charts
from sslbt.evaluation.localisation import FIGURES
from sslbt.evaluation.metrics import HEADLINES, Metrics, brier_score, expected_calibration_error
from sslbt.evaluation.results import HEADLINE, Results
from sslbt.report import findings
from sslbt.report.card import About
from sslbt.steps.judge import Judge
from sslbt.tracking.code import code_version
from sslbt.tracking.repeat import command
from sslbt.tracking.run import Run

PREDICTIONS = "predictions.csv"
COMPARED = ("accuracy", "balanced_accuracy", "patient_accuracy", "patient_balanced_accuracy", "macro_auroc")
ENDS = ("", "_ci_low", "_ci_high")
DATASET = "Slices of doi 10.6084/m9.figshare.1512427 (Jun Cheng, CC BY 4.0), if these .mat files are that data set's."


def log(results: Results, judge: Judge, run: Run) -> None:
    """Metrics, tables and pictures under the names the README lists."""
    run.metrics({f"test/{name}": value for name, value in logged(results.metrics).items()})
    for control in results.controls:
        name = control.name.replace(" ", "_")
        kept = {one + end: control.metrics[one + end] for one in COMPARED for end in ENDS}
        run.metrics({f"control/{name}/{one}": value for one, value in kept.items()})
    run.metrics(further(results))
    for change, rows in results.robustness.groupby("change", sort=False):
        for step, value in enumerate(rows.balanced_accuracy):  # a curve in the UI
            run.metrics({f"robustness/{change}".replace(" ", "_"): value}, step=step)
    run.table(PREDICTIONS, answers(results, judge))
    tables = {"groups": results.groups, "robustness": results.robustness, "saliency": results.saliency}
    for name, table in (tables | {"outliers": results.outliers, "coverage": results.answering.curve}).items():
        run.table(f"tables/{name}.csv", table)
    title = f"{judge.name}, {judge.about['labels']} labels, {len(results.predictions.labels)} unseen slices"
    run.figure("pictures/confusion.png", charts.confusion(results.predictions, results.classes, title))
    run.figure(
        "pictures/comparison.png",
        charts.forest(judge.name, results.metrics, results.controls, findings.chance(results)),
    )
    run.figure("pictures/reliability.png", charts.reliability(results.predictions, results.uncalibrated))
    run.figure("pictures/coverage.png", charts.risk_coverage(results.answering))


def logged(metrics: Metrics) -> Metrics:
    """Every figure, with its interval where it is a headline: the rest's are in the report."""
    return {
        name: value
        for name, value in metrics.items()
        if not name.endswith(("_ci_low", "_ci_high")) or name.rsplit("_ci_", 1)[0] in HEADLINES
    }


def further(results: Results) -> Metrics:
    """What is no metric of predictions alone: doubt, calibration, strange pictures, saliency."""
    doubt, labels = results.answering, results.predictions.labels
    curve = doubt.curve.set_index(doubt.curve.coverage.round(2))
    found = {
        "test/brier_uncalibrated": brier_score(labels, results.uncalibrated),
        "test/ece_uncalibrated": expected_calibration_error(labels, results.uncalibrated),
        "test/guarantee": doubt.level,
        "test/covered": doubt.covered[0],
        "test/answered": doubt.answered,
        "test/accuracy_answered": doubt.accuracy,
        "test/accuracy_at_80": float(curve.accuracy[0.8]),
    }
    for kind, accepted in zip(results.outliers.kind, results.outliers.accepted, strict=True):
        found[f"accepted/{kind}".replace(" ", "_")] = float(accepted)
    overall = results.saliency[results.saliency.by == "all"]
    for row in overall.to_dict("records"):
        method = row["method"].replace(" ", "_")
        found |= {f"saliency/{method}/{figure}": float(row[figure]) for figure in FIGURES}
    return found


def answers(results: Results, judge: Judge) -> pd.DataFrame:
    """Each slice's truth, probabilities, and the classes that are plausible for it."""
    names = np.array(results.classes)
    plausible = answering.sets(results.predictions.probabilities, results.answering.threshold)
    told = [" or ".join(names[own]) for own in plausible]
    return results.predictions.table(results.classes).assign(plausible=told, answered=plausible.sum(axis=1) == 1)


def about(cfg: Evaluate, judge: Judge, run: Run) -> About:
    """What the report says beside what was measured."""
    known, cache, split = judge.about, judge.cache, judge.split
    of_dataset = not cache.synthetic and all(PurePath(path).suffix == ".mat" for path in cache.table.path)
    pretraining = "" if known["pretrained"] == "none" else known["pretrained"]
    return About(
        name=f"{judge.name}, {known['labels']} labels",
        synthetic=cache.synthetic,
        data=cfg.data,
        digest=cache.digest,
        licence=DATASET if of_dataset else "",
        split=split.name,
        split_hash=split.hash,
        warning=split.warning,
        unknown_patients=cache.unknown_patients,
        labelled=len(known["labelled_files"]),
        training=known["training_slices"],
        validation_families=known["validation_families"],
        size=judge.size,
        width=int(known["width"]),
        weights=sum(weight.numel() for weight in judge.classifier.parameters()),
        temperature=known["temperature"],
        run=run.id,
        classifier=known["run_id"],
        pretraining=pretraining,
        code=code_version(),
        date=datetime.now(UTC).date().isoformat(),
        commands=tuple(filter(None, (command(one) for one in (pretraining, known["run_id"], run.id)))),
    )


def verdicts(results: Results, name: str) -> Iterator[str]:
    """The headline, and each control beside the classifier in words, with the paired interval of the difference."""
    yield f"{name}: balanced accuracy over patients {findings.estimate(results.metrics, HEADLINE)}"
    for control in results.controls:
        low, high = control.difference
        value = control.metrics[HEADLINE]
        yield f"  {findings.standing(control)} {control.name} ({value:.3f}); difference {low:+.3f} to {high:+.3f}"
