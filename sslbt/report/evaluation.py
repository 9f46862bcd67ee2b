"""The page of an evaluation: how good a classifier is, how far to trust that, and how to repeat it."""

import numpy as np
import pandas as pd

from sslbt.evaluation import charts
from sslbt.evaluation.localisation import FIGURES
from sslbt.evaluation.metrics import brier_score, expected_calibration_error
from sslbt.evaluation.results import HEADLINE, Results
from sslbt.evaluation.robustness import CHANGES
from sslbt.report import findings
from sslbt.report.card import About, card
from sslbt.report.cases import case
from sslbt.report.findings import estimate
from sslbt.report.page import NBSP, Picture, Table, chart, interval, render, share

MEASURES = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "macro_auroc": "macro AUROC",
    "macro_auprc": "macro AUPRC",
    "ece": "calibration error (ECE)",
    "brier": "Brier score",
}
OF_CLASS = {"recall": "sensitivity", "specificity": "specificity", "auroc": "AUROC", "auprc": "AUPRC"}

Charts = list[tuple[Picture, str, str]]  # picture, title, caption


def evaluation_report(results: Results, about: About) -> str:
    """A self-contained HTML page."""
    return render(
        "evaluation.html.jinja",
        f"Evaluation: {about.name}",
        about.synthetic,
        [
            ("data", about.digest),
            ("split", f"{about.split} {about.split_hash}"),
            ("run", about.run),
            ("on", about.date),
        ],
        verdict=findings.verdict(results, about.warning),
        numbers=_numbers(results),
        warnings=list(findings.warnings(results, about.warning, about.unknown_patients)),
        measures=_measures(results),
        by_class=[_by_class(results, "", "slices"), _by_class(results, "patient_", "patients")],
        confusion=_confusion(results),
        forest=_forest(results, about.name),
        controls=_controls(results),
        what=[f"{control.name}: {control.about}" for control in results.controls],
        calibration=_calibration(results),
        reliability=_reliability(results),
        temperature=f"{about.temperature:.3g}",
        answering=results.answering,
        answers=_answers(results),
        risk_coverage=_risk_coverage(results),
        outliers=_outliers(results.outliers),
        saliency=_saliency(results.saliency),
        examples=[case(shown, results.classes) for shown in results.examples],
        worst=[case(shown, results.classes) for shown in results.worst],
        groups=_groups(results.groups),
        robustness=_robustness(results.robustness),
        about=about,
        facts_of_runs=_repeat(about),
        card=card(results, about),
    )


def _numbers(results: Results) -> list[tuple[str, str, str]]:
    metrics = results.metrics

    def number(title: str, name: str) -> tuple[str, str, str]:
        value, _, bounds = estimate(metrics, name).partition(" (")
        return title, value, bounds.rstrip(")")

    patients = len(np.unique(results.predictions.families))
    return [
        number("balanced accuracy, patients", HEADLINE),
        number("accuracy, patients", "patient_accuracy"),
        number("balanced accuracy, slices", "balanced_accuracy"),
        number("accuracy, slices", "accuracy"),
        number("macro AUROC, slices", "macro_auroc"),
        number("calibration error (ECE)", "ece"),
        ("answers", f"{results.answering.answered:.0%}", f"{_right(results)} of them right"),
        ("test", f"{patients:,}", f"patients, {len(results.predictions.labels):,} slices"),
    ]


def _measures(results: Results) -> Table:
    rows = [
        (title, estimate(results.metrics, name), estimate(results.metrics, f"patient_{name}"))
        for name, title in MEASURES.items()
        if {name, f"patient_{name}"} & results.metrics.keys()
    ]
    return Table(("measure", "per slice", "per patient"), rows)


def _by_class(results: Results, prefix: str, unit: str) -> Table:
    """What is known of each class; measures nobody took have no column."""
    known = {
        name: title
        for name, title in OF_CLASS.items()
        if any(f"{prefix}{name}_{own}" in results.metrics for own in results.classes)
    }
    of = results.predictions.by_patient() if prefix else results.predictions
    counts = np.bincount(of.labels, minlength=len(results.classes))
    rows = [
        (own, int(count), *(estimate(results.metrics, f"{prefix}{name}_{own}") for name in known))
        for own, count in zip(results.classes, counts, strict=True)
    ]
    return Table(("class", unit, *known.values()), rows if known else [])


def _confusion(results: Results) -> Charts:
    both = ((results.predictions, "slices"), (results.predictions.by_patient(), "patients"))
    shown = []
    for of, unit in both:
        alt = f"confusion of {unit}: {(of.predicted == of.labels).sum()} of {len(of.labels)} right"
        shown.append((chart(charts.confusion(of, results.classes, unit), alt), "", ""))
    for of, unit in both:
        shown.append((chart(charts.roc(of, results.classes, unit), f"ROC curves of the classes over {unit}"), "", ""))
    return shown


def _forest(results: Results, name: str) -> Picture:
    values = [(name, results.metrics), *((control.name, control.metrics) for control in results.controls)]
    alt = "; ".join(f"{who} {estimate(own, HEADLINE)}" for who, own in values)
    drawn = charts.forest("the classifier", results.metrics, results.controls, findings.chance(results))
    return chart(drawn, f"balanced accuracy over patients: {alt}")


def _controls(results: Results) -> Table:
    rows = [
        (
            control.name,
            f"{findings.standing(control)} it",
            estimate(control.metrics, HEADLINE),
            NBSP.join((findings.signed(control.difference[0]), "to", findings.signed(control.difference[1]))),
        )
        for control in results.controls
    ]
    return Table(("control", "the classifier is", "balanced accuracy", "interval of the difference"), rows, texts=2)


def _calibration(results: Results) -> Table:
    labels = results.predictions.labels

    def row(when: str, probabilities: np.ndarray) -> tuple[str, str, str, str]:
        sure = probabilities.max(axis=1).mean()
        return (
            when,
            share(expected_calibration_error(labels, probabilities)),
            share(brier_score(labels, probabilities)),
            share(sure),
        )

    rows = [row("before", results.uncalibrated), row("after", results.predictions.probabilities)]
    return Table(("calibration", "ECE", "Brier score", "mean probability of the predicted class"), rows)


def _reliability(results: Results) -> Picture:
    drawn = charts.reliability(results.predictions, results.uncalibrated)
    return chart(drawn, "share of right answers by stated probability, before and after calibration")


def _answers(results: Results) -> list[str]:
    return [
        f"on this test they hold it in {interval(*results.answering.covered)}",
        f"it answers in {results.answering.answered:.0%} of the slices; {_right(results)} of these answers are right",
        f"answering the surest 80% of the slices, whatever their sets, it would be right in {_at_80(results)}",
    ]


def _right(results: Results) -> str:
    return f"{results.answering.accuracy:.0%}" if results.answering.answered else "none"


def _at_80(results: Results) -> str:
    row = results.answering.curve.iloc[(results.answering.curve.coverage - 0.8).abs().argmin()]
    return interval(row.accuracy, row.accuracy_ci_low, row.accuracy_ci_high)


def _risk_coverage(results: Results) -> Picture:
    alt = f"accuracy by share answered: {_at_80(results)} at 80%, {share(results.metrics['accuracy'])} at all slices"
    return chart(charts.risk_coverage(results.answering), alt)


def _outliers(table: pd.DataFrame) -> Table:
    rows = [(row["kind"], row["pictures"], f"{row['accepted']:.1%}") for row in table.to_dict("records")]
    return Table(("pictures", "how many", "pass"), rows)


def _saliency(table: pd.DataFrame) -> Table:
    rows = [
        (row["method"], _named(row), row["slices"], *(estimate(row, figure) for figure in FIGURES))
        for row in table.to_dict("records")
    ]
    return Table(("map", "of", "slices", "peak at the tumour", "peak in it", "share in it"), rows, texts=2)


def _groups(table: pd.DataFrame) -> Table:
    rows = [
        (_named(row), row["slices"], row["patients"], estimate(row, "accuracy")) for row in table.to_dict("records")
    ]
    return Table(("group", "slices", "patients", "accuracy"), rows)


def _named(row: dict) -> str:
    return row["group"] if row["by"] in ("", "all") else f"{row['by']}: {row['group']}"


def _robustness(table: pd.DataFrame) -> Charts:
    shown: Charts = []
    for change, figure in (charts.robustness(table) if len(table) else {}).items():
        own = table[table.change == change]
        pairs = zip(own.strength, own.balanced_accuracy, strict=True)
        alt = f"balanced accuracy by {change}: " + ", ".join(f"{value:.3f} at {at:g}" for at, value in pairs)
        shown.append((chart(figure, alt), change, CHANGES[change].unit if change in CHANGES else ""))
    return shown


def _repeat(about: About) -> Table:
    facts = {
        "evaluation": about.run,
        "classifier": about.classifier,
        "pretraining": about.pretraining or "none: trained from scratch",
        "code": about.code,
        "data": f"{about.data}, digest {about.digest}",
        "split": f"{about.split}, hash {about.split_hash}",
    }
    return Table(("", ""), list(facts.items()), texts=2)
