"""`main`: from slices to a classifier in service, each step a child run."""

import hashlib
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import ExecutionException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

import sslbt
from sslbt.config import STAGES, Main, Score, Training
from sslbt.data.source import Source, at, cache_folder, locate
from sslbt.errors import UserError
from sslbt.evaluation import figures
from sslbt.evaluation.results import HEADLINE
from sslbt.steps.controls import DUMB
from sslbt.steps.fitting import SCRATCH
from sslbt.steps.judge import NAMES
from sslbt.steps.score import score
from sslbt.terminal import say
from sslbt.tracking import holder, registry
from sslbt.tracking.resume import interrupted_run, wait_for_others
from sslbt.tracking.run import Run, step_key
from sslbt.tracking.store import get_run
from sslbt.waiting import alone

PROJECT = Path(sslbt.__file__).parent.parent
METRIC = f"test/{HEADLINE}"
INTERVAL = ("", "_ci_low", "_ci_high")


def main(cfg: Main, run: Run) -> None:
    """Prepare, pretrain both ways, fine-tune after each and from scratch, evaluate, register the best, score."""
    run.describe(f"main, {cfg.labels} labels", labels=cfg.labels)
    steps = Steps(run)
    # Steps run in the project's folder, so that paths must not depend on the current one.
    here = at(cfg.data)
    data = {"data": str(here.resolve()) if here.exists() else cfg.data, "split": cfg.split, "on_bad": cfg.on_bad}
    data |= {
        name: value
        for name in ("patient_pattern", "base_url")
        if (value := getattr(cfg, name)) != Main.model_fields[name].default
    }
    if cfg.annotations:
        data["annotations"] = str(at(cfg.annotations).resolve())
    labels = str(at(cfg.labels).resolve()) if cfg.labels.endswith(".csv") else cfg.labels
    training = data | {"preset": cfg.preset, "seed": cfg.seed}

    steps.do("prepare", **data)
    start_from = {
        "scratch": SCRATCH,
        "encoder": steps.do("pretrain-encoder", **training),
        "contrastive": steps.do("pretrain-contrastive", **training, pairs=cfg.pairs, num_pairs=cfg.num_pairs),
    }
    classifiers = {
        way: steps.do("finetune", way, **training, labels=labels, pretrained=run_id)
        for way, run_id in start_from.items()
    }
    evaluations = {
        way: steps.do("evaluate", way, **data, model=run_id, scratch=classifiers["scratch"] if way != "scratch" else "")
        for way, run_id in classifiers.items()
    }
    best = registry.find_best(steps.experiment, METRIC)
    steps.do("register", run=best.run.info.run_id, metric=METRIC)

    say("--- score (most of these slices were learnt from: features nearer to what was learnt are no wonder)")
    output = at(cfg.output).resolve()
    with in_turn(f"score {output}", f"to write {output}"):
        score(Score.build(input=str(locate(cfg.source)), output=cfg.output))
    show(compare(evaluations), cfg, run)


class Steps:
    """Runs entry points as child runs, or finds the finished run of another call with the same inputs.

    Where several processes come to the same step at once, one does it while the others wait.
    """

    def __init__(self, run: Run) -> None:
        if not (PROJECT / "MLproject").is_file():
            raise UserError(f"{PROJECT}: no MLproject file; main runs from a checkout of the repository")
        self.parent = run.id
        self.experiment = get_run(run.id).info.experiment_id

    def do(self, stage: str, way: str = "", **parameters: object) -> str:
        """The id of a finished run of this step; `way` tells the user which of several it is.

        Raises:
            UserError: the step failed; it has said why.
        """
        key = step_key(STAGES[stage].build(**parameters))
        with in_turn(f"{mlflow.get_tracking_uri()} {self.experiment} {key}", f"to finish the same {stage}"):
            if issubclass(STAGES[stage], Training):
                wait_for_others(key)  # by hand, or of a main that was killed
            return self._find_or_run(stage, f"{stage} ({way})" if way else stage, key, parameters)

    def _find_or_run(self, stage: str, title: str, key: str, parameters: dict[str, object]) -> str:
        done = f"attributes.status = 'FINISHED' and tags.key = '{key}'"
        for earlier in mlflow.search_runs([self.experiment], done, output_format="list", max_results=1):
            say(f"--- {title}: reusing run {earlier.info.run_id} ({earlier.info.run_name})")
            return earlier.info.run_id
        say(f"--- {title}")
        begun = interrupted_run(key) if issubclass(STAGES[stage], Training) else None
        if begun is not None:
            mlflow.MlflowClient().set_tag(begun.info.run_id, MLFLOW_PARENT_RUN_ID, self.parent)
        # "local" is the environment of this very process, whichever manager made it.
        try:
            submitted = mlflow.projects.run(
                str(PROJECT),
                stage,
                parameters=parameters,
                experiment_id=self.experiment,
                env_manager="local",
                storage_dir=str(holder.temporary()),
                run_id=begun and begun.info.run_id,
            )
        except ExecutionException as error:
            raise UserError(
                f"{stage} failed, see above; the same command continues with the steps still to do"
            ) from error
        return submitted.run_id


def in_turn(what: str, work: str) -> AbstractContextManager[None]:
    """One process at a time, for each `what`; the others say that they wait for another one `work`."""
    key = hashlib.sha256(what.encode()).hexdigest()[:16]
    return alone(cache_folder() / "steps" / f"{key}.lock", work)


def compare(evaluations: dict[str, str]) -> pd.DataFrame:
    """A row for each classifier and control, best first: name, whether it is a control, figures with intervals."""
    rows = {}
    for way, run_id in evaluations.items():
        metrics = get_run(run_id).data.metrics
        rows[NAMES[way]] = _row(metrics, "test/", control=way == "scratch")
        for control in DUMB:
            rows[control] = _row(metrics, f"control/{control.replace(' ', '_')}/", control=True)
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("name").reset_index()
    return table.sort_values(HEADLINE, ascending=False, ignore_index=True)


def _row(metrics: dict[str, float], prefix: str, control: bool) -> dict[str, object]:
    figures_of = [name + end for name in ("accuracy", HEADLINE) for end in INTERVAL] + ["macro_auroc"]
    return {"control": control} | {name: metrics.get(prefix + name, float("nan")) for name in figures_of}


def show(table: pd.DataFrame, cfg: Main, run: Run) -> None:
    """Log the comparison and print it, with what to do next."""
    run.table("comparison.csv", table)
    rows = [(row["name"], *(row[HEADLINE + end] for end in INTERVAL), row["control"]) for _, row in table.iterrows()]
    title = f"{cfg.labels} labelled slices, split {cfg.split}" + (
        ", synthetic phantoms" if cfg.source.synthetic else ""
    )
    run.figure("pictures/comparison.png", figures.comparison(rows, "balanced accuracy over patients", title))
    best = table[~table.control].iloc[0]
    run.metrics({METRIC + end: best[HEADLINE + end] for end in INTERVAL})

    def with_interval(row: pd.Series, name: str) -> str:
        value, low, high = (row[name + end] for end in INTERVAL)
        return f"{value:.3f} ({low:.3f} to {high:.3f})"

    whose = "patients that training saw too" if cfg.split == "slices" else "unseen patients"
    print(f"\n{title}; {whose}, 95 % intervals over patients\n")
    names = table.name + np.where(table.control, " *", "")
    width = names.str.len().max()
    print(f"{'':{width}} {'slice accuracy':24} {'balanced over patients':24} AUROC")
    for name, (_, row) in zip(names, table.iterrows(), strict=True):
        slices, patients = with_interval(row, "accuracy"), with_interval(row, HEADLINE)
        print(f"{name:{width}} {slices:24} {patients:24} {row.macro_auroc:.3f}")
    print("* a control that learns nothing from unlabelled slices\n")
    print(f"Activate first:     . {Path(sys.prefix) / 'bin' / 'activate'}")
    print("Compare the runs:   mlflow ui        then open http://127.0.0.1:5000")
    print(f"Score a picture:    sslbt score --input {example(cfg.source)} --output one.csv")


def example(source: Source) -> Path:
    """Something of the data that can be scored."""
    place = locate(source)
    return next(iter(sorted(place.glob("*.mat"))), place) if place.is_dir() else place
