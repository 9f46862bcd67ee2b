"""Tables and picture of what `accuracy.py` keeps: means over draws, intervals over the patients of all folds.

    python benchmarks/accuracy_table.py docs/results_standard.json docs/results_standard_12.json --out .

prints the tables of several such files as one, and draws accuracy.png; where two have the same cell the later counts.
"""

import argparse
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_answers import PRETRAININGS, SCRATCH, Answer, Plan, Study, digest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sslbt.evaluation.charts import AMBER, INK, LINE, PALE, QUIET, TEAL
from sslbt.evaluation.intervals import interval
from sslbt.evaluation.metrics import Predictions, bootstrap, headline, paired_difference
from sslbt.evaluation.results import HEADLINE
from sslbt.steps.controls import DUMB
from sslbt.steps.judge import NAMES
from sslbt.terminal import say
from sslbt.tracking.code import code_version
from sslbt.training import checkpoint

METRICS = {"accuracy": "slices", HEADLINE: "patients"}
LOOKS = {  # colour, marker, line
    "contrastive": (TEAL, "o", "-"),
    "encoder": (AMBER, "s", "-"),
    SCRATCH: (INK, "D", "-"),
    "raw pixels": (QUIET, "^", "--"),
    "learnt from the background": (QUIET, "v", "-."),
    "ten intensities": (PALE, "P", "--"),
    "random encoder": (PALE, "X", "-."),
    "majority": (LINE, "", ":"),
}
Row = dict[str, Any]


def report(study: Study, plan: Plan, out: Path) -> None:
    """Print both tables; write accuracy.png and, with every figure behind them, results.json."""
    there = [answer for answer in plan.answers() if study.has(answer)]
    missing = len(plan.answers()) - len(there)
    if missing:
        say(f"{missing} of {len(plan.answers())} answers are missing; what needs them is left out")
    draws = {labels: common_draws(plan, labels, set(there)) for labels in plan.budgets}
    complete = {
        (method, labels): [
            [study.predictions(Answer(fold, method, labels, draw)) for fold in plan.folds] for draw in own
        ]
        for labels, (methods, own) in draws.items()
        for method in methods
    }
    rows = [row for (method, labels), answers in complete.items() for row in measured(method, labels, answers)]
    pairs = [
        row
        for (method, labels), answers in complete.items()
        if method in NAMES and method != SCRATCH and (SCRATCH, labels) in complete
        for row in above(method, labels, answers, complete[SCRATCH, labels])
    ]
    test = [study.splits[fold].table.iloc[study.splits[fold].rows("test")] for fold in plan.folds]
    about = {
        "data_digest": study.cache.digest,
        "synthetic": study.cache.synthetic,
        "preset": study.preset,
        "folds": {fold: study.splits[fold].hash for fold in plan.folds},
        "draws": {labels: own for labels, (_, own) in draws.items()},
        "test_slices": sum(len(own) for own in test),
        "test_families": sum(own.family.nunique() for own in test),
        "missing_answers": missing,
        "answers_by_code": sorted({study.about(answer)["code_version"] for answer in there}),
        "table_by_code": code_version(),
        "encoders": {
            place.stem: {"digest": digest(place), "code_version": checkpoint.load(place)[1].get("code_version")}
            for fold, way in product(plan.folds, PRETRAININGS)
            if (place := study.encoder_place(fold, way)).exists()
        },
        "finetuned_by": {answer.method: study.about(answer)["config"] for answer in there if answer.method in NAMES},
    }
    print(told(about, plan))
    print(f"\n{table(rows, plan)}\n\n{differences(pairs)}")
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(about | {"figures": rows, "above_scratch": pairs}, indent=1) + "\n")
    chart(rows, plan).savefig(out / "accuracy.png", dpi=120)
    say(f"{out / 'accuracy.png'} and results.json")


def common_draws(plan: Plan, labels: str, there: set[Answer]) -> tuple[list[str], list[int]]:
    """Methods that have answers for all folds of a draw, and the draws that all these methods have."""
    draws = {
        method: {
            draw
            for draw in plan.draws_of(labels)
            if all(Answer(fold, method, labels, draw) in there for fold in plan.folds)
        }
        for method in plan.methods
    }
    begun = {method: own for method, own in draws.items() if own}
    common = sorted(set.intersection(*begun.values())) if begun else []
    return (list(begun) if common else []), common


def together(folds: Sequence[Predictions]) -> Predictions:
    """Answers of several folds as if they were one test: their families are disjoint."""
    parts = [(own.labels, own.probabilities, own.families, own.files) for own in folds]
    return Predictions(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def measured(method: str, labels: str, draws: list[list[Predictions]]) -> list[Row]:
    """Each metric over all folds, mean of the draws; every draw sees the same bootstrap samples of the families."""
    whole = [together(folds) for folds in draws]
    points, samples = [headline(own) for own in whole], [bootstrap(own) for own in whole]
    alone = [[headline(own) for own in folds] for folds in draws]
    rows = []
    for metric in METRICS:
        by_draw = [own[metric] for own in points]
        by_draw_and_fold = [[own[metric] for own in folds] for folds in alone]
        value = float(np.mean(by_draw))
        low, high = interval(np.mean([own[metric] for own in samples], axis=0), value)
        row = {"method": method, "labels": labels, "metric": metric, "value": value, "ci_low": low, "ci_high": high}
        rows.append(row | {"by_draw": by_draw, "by_draw_and_fold": by_draw_and_fold})
    return rows


def above(method: str, labels: str, draws: list[list[Predictions]], others: list[list[Predictions]]) -> list[Row]:
    """What a method has more than another with the same labels, on the same samples of families."""
    pairs = [(together(ours), together(theirs)) for ours, theirs in zip(draws, others, strict=True)]
    rows = []
    for metric in METRICS:
        value = float(np.mean([headline(ours)[metric] - headline(theirs)[metric] for ours, theirs in pairs]))
        samples = np.mean([paired_difference(ours, theirs, metric) for ours, theirs in pairs], axis=0)
        low, high = interval(samples, value)
        row = {"method": method, "labels": labels, "metric": metric, "difference": value, "ci_low": low}
        rows.append(row | {"ci_high": high, "better": verdict(low, high)})
    return rows


def verdict(low: float, high: float) -> str:
    """In words, by the interval of a difference."""
    return "yes" if low > 0 else "no, it is below" if high < 0 else "not clearly"


def told(about: Row, plan: Plan) -> str:
    """What the tables are about."""
    draws = ", ".join(f"{len(own)} of {labels} labels" for labels, own in about["draws"].items())
    codes = [f"`{own[:7]}{'-dirty' * own.endswith('-dirty')}`" for own in about["answers_by_code"]]
    return (
        f"{about['test_slices']:,} test slices of {about['test_families']} families, data `{about['data_digest']}`"
        f"{' (phantoms)' if about['synthetic'] else ''}; folds {plan.folds}; draws: {draws}; "
        f"preset {about['preset']}; code {', '.join(codes)}. Accuracy of slices / balanced "
        "accuracy over patients, with 95 % intervals over the families of all folds."
    )


def table(rows: list[Row], plan: Plan) -> str:
    """Markdown: methods by budgets."""
    known = {(row["method"], row["labels"], row["metric"]): row for row in rows}
    lines = ["| |" + "".join(f" {labels} labels |" for labels in plan.budgets), "|---|" + "---|" * len(plan.budgets)]
    for method in plan.methods:
        cells = [
            " / ".join(
                with_interval(own, "value") for metric in METRICS if (own := known.get((method, labels, metric)))
            )
            for labels in plan.budgets
        ]
        lines.append(f"| {named(method)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def differences(pairs: list[Row]) -> str:
    """Markdown: what ways have more than from-scratch training, and whether that is clear."""
    lines = ["| way | labels | of | more than from scratch | beats it |", "|---|---|---|---|---|"]
    lines += [
        f"| {named(row['method'])} | {row['labels']} | {METRICS[row['metric']]} | "
        f"{with_interval(row, 'difference', '+')} | {row['better']} |"
        for row in pairs
    ]
    return "\n".join(lines)


def named(method: str) -> str:
    """As people read it; what is no way of pretraining is a control."""
    return f"control: {NAMES.get(method, method)}" if method in (SCRATCH, *DUMB) else NAMES[method]


def with_interval(row: Row, name: str, sign: str = "") -> str:
    """.721 (.577 to .799)."""
    value, low, high = (short(row[column], sign) for column in (name, "ci_low", "ci_high"))
    return f"{value} ({low} to {high})"


def short(value: float, sign: str = "") -> str:
    """.721 for 0.721."""
    return f"{value:{sign}.3f}".replace("0.", ".", 1)


def chart(rows: list[Row], plan: Plan) -> Figure:
    """Each metric by the number of labels, one panel each, with intervals; neighbours stand a little apart."""
    figure = Figure(figsize=(8.4, 4.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    titles = ("accuracy of slices", "balanced accuracy over patients")
    for axis, metric, title in zip(axes, METRICS, titles, strict=True):
        for place, method in enumerate(plan.methods):
            _line(
                axis, [row for row in rows if (row["method"], row["metric"]) == (method, metric)], method, place, plan
            )
        axis.set_title(title, fontsize=10, color=INK)
        axis.set(xticks=range(len(plan.budgets)), xticklabels=plan.budgets, xlim=(-0.35, len(plan.budgets) - 0.65))
        axis.set_xlabel("labelled slices", fontsize=9, color=QUIET)
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(LINE)
        axis.tick_params(labelsize=9, colors=QUIET, labelcolor=INK)
        axis.grid(axis="y", color=LINE, alpha=0.35, linewidth=0.6)
    axes[0].set_ylim(min((row["ci_low"] for row in rows), default=0) - 0.02, 1.01)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=8.5)
    return figure


def _line(axis: Axes, rows: list[Row], method: str, place: int, plan: Plan) -> None:
    colour, marker, line = LOOKS[method]
    ours = method in NAMES
    where = [plan.budgets.index(row["labels"]) + 0.045 * (place - (len(plan.methods) - 1) / 2) for row in rows]
    low, high = ([row[end] for row in rows] for end in ("ci_low", "ci_high"))
    axis.vlines(where, low, high, color=colour, linewidth=2 if ours else 1, alpha=0.55)
    axis.plot(
        where,
        [row["value"] for row in rows],
        color=colour,
        marker=marker,
        markersize=6 if ours else 5,
        linestyle=line,
        linewidth=1.8 if ours else 1,
        label=named(method),
    )


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="where accuracy.png goes")
    given = parser.parse_args(words)
    known: dict[str, dict[tuple[str, str, str], Row]] = {"figures": {}, "above_scratch": {}}
    for path in given.results:
        found = json.loads(path.read_text())
        for kind, rows in known.items():
            rows |= {(row["method"], row["labels"], row["metric"]): row for row in found[kind]}
    rows = list(known["figures"].values())
    methods, budgets = ({row[name]: None for row in rows} for name in ("method", "labels"))
    plan = Plan([], [way for way in NAMES if way in methods], list(budgets), [])
    print(f"{table(rows, plan)}\n\n{differences(list(known['above_scratch'].values()))}")
    chart(rows, plan).savefig(given.out / "accuracy.png", dpi=120)


if __name__ == "__main__":
    main()
