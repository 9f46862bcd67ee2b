"""`sweep`: the same training with other parameters, again and again, each a child run."""

import gc
import math
import shlex
import shutil
from collections.abc import Mapping

import optuna
import pandas as pd
import torch
from optuna.trial import FrozenTrial, Trial, TrialState

from sslbt.config import Data, Evaluate, Finetune, Sweep
from sslbt.data.source import cache_folder
from sslbt.errors import UserError
from sslbt.evaluation import sweep_figure
from sslbt.parameters import Config, preset_values, stage_of
from sslbt.search import Range, Value
from sslbt.steps import study as studies
from sslbt.steps.common import open_data
from sslbt.steps.finetune import finetune
from sslbt.steps.pretrain_contrastive import pretrain_contrastive
from sslbt.steps.pretrain_encoder import pretrain_encoder
from sslbt.terminal import say
from sslbt.tracking import children
from sslbt.tracking.resume import GivenUp
from sslbt.tracking.run import Run, start, step_key
from sslbt.training.loop import Report, Schedule
from sslbt.training.state import SCORE, steady
from sslbt.training.stopping import Stop

STEPS = {
    "pretrain-contrastive": pretrain_contrastive,
    "pretrain-encoder": pretrain_encoder,
    "finetune": finetune,
}
OF_CLASSIFIER = "validation/balanced_accuracy"  # of the last epoch: `finetune` chooses none
STATES = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
HOPELESS = 5  # trials that fail before any other outcome
SHOWN = 10  # trials in the printed table


def sweep(cfg: Sweep, run: Run) -> None:
    """Try values of some parameters, learn from each trial what to try next, and say which were best.

    Trials are judged by validation patients, never by the test. The study lies in the cache, so that the same command
    goes on where it was interrupted, and one with more `trials` goes on where it ended.

    Raises:
        UserError: the data can't be used, or all trials fail.
    """
    space, key, example = cfg.space, step_key(cfg), cfg.example()
    run.describe(title(cfg), trials=cfg.trials)
    open_data(example, run)  # what is wrong with the data is wrong in every trial
    lengths = None if "epochs" in space else example.epochs
    study = studies.open_study(cache_folder() / "sweeps" / f"{key}.journal", studies.pruner_of(lengths))
    children.adopt(run.id, key)
    wanted = int(min(cfg.trials, studies.combinations(space)))
    if wanted < cfg.trials:
        say(f"there are {wanted} combinations to try, not {cfg.trials}")

    tell(study, cfg, run, studies.done(study))
    with Stop() as stop:  # an interrupt in the middle of drawing or logging would look like a failure
        for trial in studies.trials(study, space, cfg.seed, wanted):
            say(f"--- trial {trial.number + 1} of {wanted}: {words(trial.params)}")
            attempt(study, trial, cfg, key, stop)
            gc.collect()  # networks that refer to themselves
            tell(study, cfg, run, studies.done(study)[-1:])
            stop_if_hopeless(study, wanted)
            if stop.asked:
                raise KeyboardInterrupt
    show(study, cfg, run)


def attempt(study: optuna.Study, trial: Trial, cfg: Sweep, key: str, stop: Stop) -> None:
    """Train with a trial's values in a run of its own, and tell the study how it ended."""
    try:
        train(trial, cfg, key, stop)
        value = outcome(study.trials[trial.number], cfg.stage)
        if math.isnan(value):
            raise UserError(f"no {score_of(cfg.stage)} could be measured for want of validation patients")
    except GivenUp:
        study.tell(trial, state=TrialState.PRUNED)
        say(f"--- trial {trial.number + 1} is given up: half of the finished ones were better by then")
    except (UserError, torch.OutOfMemoryError) as error:
        trial.set_user_attr("failed", str(error))
        study.tell(trial, state=TrialState.FAIL)
        say(f"--- trial {trial.number + 1} failed: {first_clause(str(error))}")
    else:
        study.tell(trial, value)
        say(f"--- trial {trial.number + 1}: {value:.3f}, best so far {study.best_value:.3f}")


def train(trial: Trial, cfg: Sweep, key: str, stop: Stop) -> None:
    """Train, in a new run or the interrupted one; what a run of this sweep has already done is only told.

    Raises:
        GivenUp: the study thinks little of it.
        UserError: it failed.
    """
    config, score = cfg.training(**trial.params), score_of(cfg.stage)
    if earlier := children.done(key, step_key(config)):  # interrupted right after it, or the study was lost
        trial.set_user_attr("run", earlier.info.run_id)
        report(trial, children.history(earlier, score))
        if earlier.info.status != "FINISHED":
            raise GivenUp
        return
    with start(config) as child:
        trial.set_user_attr("run", child.id)
        last = 0 if getattr(config, "freeze", "") == "all" else config.epochs - 1
        try:
            STEPS[cfg.stage](config, Judged(child, trial, key, score, last, stop))  # type: ignore[operator]
        except (UserError, torch.OutOfMemoryError):
            shutil.rmtree(child.unfinished, ignore_errors=True)  # nobody will continue it
            raise


class Judged(Run):
    """The run of a trial: called by its values; the study hears its scores, and may give it up before the last."""

    def __init__(self, run: Run, trial: Trial, sweep: str, score: str, last: int, stop: Stop) -> None:
        super().__init__(run.id, run.unfinished)
        self.trial, self.score, self.last, self.stop = trial, score, last, stop
        self.tags = {children.SWEEP: sweep, "trial": trial.number + 1}
        self.describe("")

    def describe(self, name: str, **tags: object) -> None:
        super().describe(words(self.trial.params), **tags | self.tags)

    def metrics(self, metrics: dict[str, float], step: int | None = None, ended: float | None = None) -> None:
        super().metrics(metrics, step, ended)
        if step is None or self.score not in metrics:
            return
        report(self.trial, {step: metrics[self.score]})
        if step < self.last and self.trial.should_prune():
            raise GivenUp

    def report(self, schedule: Schedule, kind: str = "") -> Report:
        if self.stop.asked:  # before its training began, which would not know
            raise KeyboardInterrupt
        return super().report(schedule, kind)


def report(trial: Trial, scores: dict[int, float]) -> None:
    """Tell the study what it doesn't know yet: a training that continues tells its past again."""
    known = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
    for step, value in scores.items():
        if step not in known and math.isfinite(value):
            trial.report(value, step)


def score_of(stage: str) -> str:
    """The metric that trials of this training are judged by."""
    return OF_CLASSIFIER if stage == "finetune" else SCORE


def outcome(trial: FrozenTrial, stage: str) -> float:
    """A trial's score: a pretraining keeps its best epoch, a fine-tuning its last; not a number where there is none."""
    scores = [value for _, value in sorted(trial.intermediate_values.items())]
    if not scores:
        return math.nan
    return scores[-1] if stage == "finetune" else max(steady(scores))


def stop_if_hopeless(study: optuna.Study, wanted: int) -> None:
    """End a sweep whose trials fail, all of them, before hours are spent on more.

    Raises:
        UserError: so many trials failed and none did anything else.
    """
    ended = studies.done(study)
    if len(ended) >= min(HOPELESS, wanted) and all(trial.state == TrialState.FAIL for trial in ended):
        why = first_clause(ended[-1].user_attrs["failed"])
        raise UserError(f"all {len(ended)} trials failed, the last one since {why}; change search, fixed or data")


def tell(study: optuna.Study, cfg: Sweep, run: Run, ended: list[FrozenTrial]) -> None:
    """Log the table of all trials and, for each of these, the best score until then."""
    for trial in ended:
        until = study.trials[: trial.number + 1]
        scores = [outcome(one, cfg.stage) for one in until if one.state == TrialState.COMPLETE]
        if scores and trial.datetime_complete:
            best = {"sweep/best_score": max(scores)}
            run.metrics(best, step=trial.number + 1, ended=trial.datetime_complete.timestamp())
    if ended:
        run.table("trials.csv", table(study, cfg.stage))


def table(study: optuna.Study, stage: str) -> pd.DataFrame:
    """A row a trial: number, state, score (of those given up: until then), values, run, why it failed."""
    return pd.DataFrame(
        {"trial": trial.number + 1, "state": STATES[trial.state], "score": outcome(trial, stage)}
        | trial.params
        | {"run": trial.user_attrs.get("run", ""), "failed": trial.user_attrs.get("failed", "")}
        for trial in studies.done(study)
    )


def show(study: optuna.Study, cfg: Sweep, run: Run) -> None:
    """Log what came out, and print it with the command lines that use it."""
    best, trials, names = study.best_trial, table(study, cfg.stage), list(cfg.space)
    logarithmic = {name for name, own in cfg.space.items() if isinstance(own, Range) and own.log}
    score, best_run = score_of(cfg.stage), best.user_attrs["run"]
    run.figure("pictures/trials.png", sweep_figure.trials(trials, names, logarithmic, score))
    counts = {state: int((trials.state == state).sum()) for state in STATES.values()}
    run.metrics({f"sweep/{state}": float(count) for state, count in counts.items()})
    found = {f"best/{name}": value for name, value in best.params.items()}
    run.describe(title(cfg), best_run=best_run, best_trial=best.number + 1, **found)

    print(f"\n{len(trials)} trials: " + ", ".join(f"{count} {state}" for state, count in counts.items()))
    print(f"The best by {score} (validation patients; the test was not looked at):\n")
    ranked = trials[trials.state == "finished"].sort_values("score", ascending=False, kind="stable").head(SHOWN)
    print(ranked[["score", *names, "trial", "run"]].to_string(index=False, float_format="{:.4g}".format))
    config = cfg.training(**best.params)
    own = {name: getattr(cfg, name) for name in (*Data.model_fields, "split")}
    after: Config = Evaluate.build(**own, model=best_run)
    if cfg.stage != "finetune":
        after = Finetune.build(**own, preset=cfg.preset, pretrained=best_run)
    print(f"\nThe same training:   {command(config)}")
    print(f"Go on with the best: {command(after)}")
    print("Compare the trials:  mlflow ui        then open http://127.0.0.1:5000")


def title(cfg: Sweep) -> str:
    """What the sweep's run is called."""
    return f"sweep {cfg.stage}: {', '.join(cfg.space)}"


def words(values: Mapping[str, Value]) -> str:
    """Values for a person: `learning_rate 0.0012, width 32`."""
    return ", ".join(f"{name} {text(value)}" for name, value in values.items())


def text(value: object) -> str:
    """A value as the command line takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def command(config: Config) -> str:
    """The command line that gives these parameters."""
    usual = {name: field.default for name, field in type(config).model_fields.items()}
    usual |= preset_values(type(config), getattr(config, "preset", ""))
    given = {name.replace("_", "-"): text(value) for name, value in config if value != usual[name]}
    return shlex.join(
        ["sslbt", stage_of(type(config)), *(word for name in given for word in (f"--{name}", given[name]))]
    )


def first_clause(sentence: str) -> str:
    """What is wrong, without the remedy: in a sweep nobody is there to apply it."""
    return sentence.split(";")[0].split("\n")[0]
