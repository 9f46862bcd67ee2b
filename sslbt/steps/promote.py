"""`promote`: a version into service, if on the same test patients it is not clearly below the one that is."""

from dataclasses import asdict, dataclass
from typing import Any

from mlflow.entities.model_registry import ModelVersion

from sslbt.config import Promote
from sslbt.errors import UserError
from sslbt.evaluation.metrics import Predictions, classes_of, paired_table
from sslbt.steps.told import PREDICTIONS
from sslbt.terminal import say
from sslbt.tracking import registry
from sslbt.tracking.run import Run
from sslbt.tracking.store import get_run


@dataclass(frozen=True)
class Decision:
    """What was weighed, and what came of it; figures are missing where there was nothing to compare with."""

    name: str
    version: str
    promoted: bool
    reason: str
    asked_by: str
    metric: str
    champion: str = ""  # the version in service before
    evaluation: str = ""
    champion_evaluation: str = ""
    patients: int | None = None
    value: float | None = None
    champion_value: float | None = None
    difference: float | None = None
    difference_ci_low: float | None = None
    difference_ci_high: float | None = None


def promote(cfg: Promote, run: Run) -> None:
    """Weigh the challenger, or the version asked for, against the champion; move the alias if it holds."""
    version = registry.version(cfg.name, cfg.version or registry.CHALLENGER)
    run.describe(f"promote {cfg.name} version {version.version}")
    decide(cfg.name, version, cfg.metric, run)


def decide(name: str, version: ModelVersion, metric: str, run: Run) -> None:
    """Promote a version or say why not; either way the run and the version keep the figures and who asked."""
    with registry.alone(name):
        while True:
            before = registry.champion(name)
            found = weigh(name, version, before, metric)
            if registry.champion(name) == before:  # another machine may have promoted meanwhile
                break
        if found.promoted:
            registry.promote(name, version)
    state = "is champion" if found.promoted else "does not go into service"
    say(f"{name} version {found.version} {state}: {found.reason}")
    log(found, version, run)


def log(found: Decision, version: ModelVersion, run: Run) -> None:
    """The decision with the run that took it, and with the version it is about."""
    run.json("decision.json", asdict(found))
    run.mark(
        promoted=found.promoted,
        reason=found.reason,
        asked_by=found.asked_by,
        version=found.version,
        champion_before=found.champion,
    )
    names = ("value", "champion_value", "difference", "difference_ci_low", "difference_ci_high", "patients")
    run.metrics({f"decision/{name}": value for name in names if (value := getattr(found, name)) is not None})
    registry.tag(version, decision=found.reason, decided_by=found.asked_by, decided_in=run.id)


def weigh(name: str, version: ModelVersion, champion: ModelVersion | None, metric: str) -> Decision:
    """Whether a version may replace the champion.

    On the same test patients it must not be below it: the paired bootstrap's 95 % interval may not lie under zero.

    Raises:
        UserError: the version was never evaluated, or its evaluation lacks the metric.
    """
    evaluation = version.tags.get("evaluation", "")
    if not evaluation:
        raise UserError(
            f"{name} version {version.version}: no evaluation of it is known; register it by `sslbt register`"
        )

    def decision(promoted: bool, reason: str, **more: object) -> Decision:
        facts = {"champion": str(champion.version) if champion else "", "evaluation": evaluation} | more
        return Decision(name, str(version.version), promoted, reason, registry.asked_by(), metric, **facts)  # type: ignore[arg-type]

    if champion is None:
        return decision(True, "none was in service")
    if champion.version == version.version:
        return decision(True, "it is in service already")
    theirs = registry.evaluation_like(evaluation, champion)
    if theirs is None:
        about = get_run(evaluation).data.tags
        again = f"--model models:/{name}@{registry.CHAMPION} --data {about['data']} --split {about['split']}"
        return decision(
            False, f"the champion was not judged on these test slices; run `sslbt evaluate {again}`, then promote again"
        )
    try:
        paired, patients = beside(evaluation, theirs)
    except ValueError:
        return decision(False, f"the champion was judged on other slices (run {theirs}) or knows other classes")
    key = metric.removeprefix("test/")
    if key not in paired:
        known = ", ".join(f"test/{own}" for own in paired)
        raise UserError(f"metric={metric}: can't be compared; there are {known}")
    row = paired[key]
    low, high = row["low"], row["high"]
    gap = f"difference {row['difference']:+.3f} ({low:+.3f} to {high:+.3f})"
    return decision(
        not high < 0,
        f"{'' if high < 0 else 'not '}clearly below the champion in {key}: {row['ours']:.3f} against "
        f"{row['theirs']:.3f}, {gap}",
        champion_evaluation=theirs,
        patients=patients,
        value=row["ours"],
        champion_value=row["theirs"],
        difference=row["difference"],
        difference_ci_low=low,
        difference_ci_high=high,
    )


def beside(evaluation: str, other: str) -> tuple[dict[str, dict[Any, float]], int]:
    """Figures of two evaluations by metric, as `paired_table` has them, and of how many patients.

    Raises:
        ValueError: they are about other slices, or other classes.
    """
    ours, theirs = (registry.predictions_of(run, PREDICTIONS) for run in (evaluation, other))
    classes = classes_of(ours)
    own, others = (Predictions.from_table(table, classes) for table in (ours, theirs))
    paired = paired_table(own, others, classes).set_index("name")
    return {str(name): dict(row.items()) for name, row in paired.iterrows()}, len(set(own.families))
