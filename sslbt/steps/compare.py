"""`compare`: evaluations side by side, each against the first on the very same patients."""

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Run as MlflowRun

from sslbt.config import Compare
from sslbt.errors import UserError
from sslbt.evaluation import charts
from sslbt.evaluation.metrics import Predictions, classes_of, evaluate, paired_table
from sslbt.evaluation.results import HEADLINE
from sslbt.steps.told import PREDICTIONS
from sslbt.tracking import registry
from sslbt.tracking.run import CONFIG, Run
from sslbt.tracking.store import get_run

METRICS = ("accuracy", "balanced_accuracy", "macro_auroc", "ece", "patient_accuracy", HEADLINE)


def compare(cfg: Compare, run: Run) -> None:
    """Print and log what each evaluation has more of than the first one, with intervals over the same patients."""
    runs = [evaluation(run_id) for run_id in cfg.runs.split()]
    names = distinct([chosen.info.run_name.removeprefix("evaluate ") for chosen in runs])
    answers = in_one_order(runs, [registry.predictions_of(chosen.info.run_id, PREDICTIONS) for chosen in runs])
    table = beside_the_first(names, runs, answers)
    run.describe(f"compare {len(runs)} with {names[0]}", compared=cfg.runs)
    run.table("comparison.csv", table)
    run.figure("pictures/differences.png", charts.differences(table[table.metric == HEADLINE], HEADLINE))
    print(
        f"\n{len(answers[0].labels)} slices of {len(np.unique(answers[0].families))} patient families; each figure with"
    )
    print("its 95 % interval over patients, then its difference to the first, and p of no difference (Holm)\n")
    for metric in METRICS:
        print(f"{metric}\n{told(table[table.metric == metric])}\n")


def evaluation(run_id: str) -> MlflowRun:
    """The evaluation of this id, or the newest one of the fine-tuning of this id.

    Raises:
        UserError: neither.
    """
    chosen = get_run(run_id)
    if chosen.data.tags.get("stage") == "finetune":
        wanted = f"params.`{CONFIG}model` = '{run_id}' and tags.stage = 'evaluate' and attributes.status = 'FINISHED'"
        found = mlflow.search_runs([chosen.info.experiment_id], wanted, output_format="list", max_results=1)
        if not found:
            raise UserError(
                f"{run_id}: {chosen.info.run_name} has no evaluation yet; run `sslbt evaluate --model {run_id}`"
            )
        return found[0]
    if chosen.data.tags.get("stage") != "evaluate" or chosen.info.status != "FINISHED":
        raise UserError(f"{run_id}: {chosen.info.run_name} is no finished evaluation; give the ids of such")
    return chosen


def distinct(names: list[str]) -> list[str]:
    """The same names, those that come again with a number behind them."""
    before = [names[:place].count(name) for place, name in enumerate(names)]
    return [f"{name} ({count + 1})" if count else name for name, count in zip(names, before, strict=True)]


def in_one_order(runs: list[MlflowRun], tables: list[pd.DataFrame]) -> list[Predictions]:
    """The answers of these evaluations by the first one's order of classes: each classifier has its own.

    Raises:
        UserError: one knows other classes.
    """
    answers = []
    for chosen, table in zip(runs, tables, strict=True):
        try:
            answers.append(Predictions.from_table(table, classes_of(tables[0])))
        except ValueError as error:
            raise UserError(
                f"{chosen.info.run_id} ({chosen.info.run_name}) knows other classes than {runs[0].info.run_id} "
                f"({runs[0].info.run_name}): {error}; compare classifiers of the same classes"
            ) from error
    return answers


def beside_the_first(names: list[str], runs: list[MlflowRun], answers: list[Predictions]) -> pd.DataFrame:
    """A row for each metric and evaluation.

    Returns:
        metric, name, run_id, value, ci_low, ci_high; difference to the first run, difference_ci_low and _ci_high, and p
        of no difference, multiplied for the number of comparisons (Holm 1979). The first has no difference.

    Raises:
        UserError: one was judged on other slices.
    """
    rows = []
    for name, chosen, own in zip(names, runs, answers, strict=True):
        values, classes = evaluate(own, ()), tuple(map(str, range(own.probabilities.shape[1])))
        try:
            paired = paired_table(own, answers[0], classes).set_index("name")
        except ValueError as error:
            raise UserError(
                f"{chosen.info.run_id} ({chosen.info.run_name}) was judged on other slices than {runs[0].info.run_id} "
                f"({runs[0].info.run_name}); evaluate both with the same data and split"
            ) from error
        for metric in METRICS:
            row = {"metric": metric, "name": name, "run_id": chosen.info.run_id, "value": values[metric]}
            row |= {"ci_low": values[f"{metric}_ci_low"], "ci_high": values[f"{metric}_ci_high"]}
            if own is not answers[0]:
                one = paired.loc[metric]
                row |= {
                    "difference": one.difference,
                    "difference_ci_low": one.low,
                    "difference_ci_high": one.high,
                    "p": one.p,
                }
            rows.append(row)
    table = pd.DataFrame(rows)
    table["p"] = table.groupby("metric").p.transform(holm)
    return table


def holm(p: pd.Series) -> pd.Series:
    """P values made valid together: the k-th smallest of n times n - k + 1, none below a smaller one's (Holm 1979)."""
    known = p.dropna().sort_values()
    return (known * np.arange(len(known), 0, -1)).cummax().clip(upper=1).reindex(p.index)


def told(rows: pd.DataFrame) -> str:
    """The table of one metric, as a person reads it."""
    lines, width = [], rows.name.str.len().max()
    for row in rows.to_dict("records"):
        line = f"  {row['name']:{width}}  {row['value']:.3f} ({row['ci_low']:.3f} to {row['ci_high']:.3f})"
        if np.isfinite(row["difference"]):
            ends = f"({row['difference_ci_low']:+.3f} to {row['difference_ci_high']:+.3f})"
            line += f"   {row['difference']:+.3f} {ends}  p {row['p']:.3f}"
        lines.append(line)
    return "\n".join(lines)
