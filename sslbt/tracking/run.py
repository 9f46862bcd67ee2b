"""One MLflow run: what a step reports, and the facts every run carries."""

import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from matplotlib.figure import Figure
from mlflow.data.pandas_dataset import from_pandas
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from sslbt import parallel
from sslbt.config import Data, Main, Prepare, Sweep, Training
from sslbt.data.audit import Audit
from sslbt.data.cache import Cache, prepare
from sslbt.data.files import fingerprint
from sslbt.data.source import at, locate
from sslbt.data.splits import Split
from sslbt.parameters import Config, stage_of
from sslbt.search import assignments
from sslbt.terminal import say
from sslbt.tracking import holder
from sslbt.tracking.code import code_digest, code_version
from sslbt.tracking.orphans import end_orphans
from sslbt.tracking.resume import PRUNED, GivenUp, run_to_continue, unfinished
from sslbt.tracking.store import get_run
from sslbt.tracking.telling import Silence, Telling
from sslbt.training.loop import Report, Schedule

SAMPLED_AFTER = 2.0  # seconds
MORE = "trials"  # of a sweep, may grow: the same sweep goes on, and MLflow's parameters can't change
CONFIG = "config/"  # `mlflow run` logs the raw parameters under their plain names


def step_key(config: Config) -> str:
    """Equal for steps whose parameters, data and code are equal; run ids among the parameters stand for the rest.

    Data count by content, wherever they lie; only `prepare`, which finds out the content, goes by names and times.
    """
    values = config.model_dump(mode="json")
    if isinstance(config, Prepare | Main):
        values["data"] = fingerprint(locate(config.source))
    elif isinstance(config, Data):
        values = {name: value for name, value in values.items() if name not in Data.model_fields}
        values["data"] = prepare(config.source).digest
    if isinstance(config, Sweep):
        values |= assignments(values.pop("fixed"), "fixed")
        del values[MORE]
    for name, value in values.items():
        if isinstance(value, str) and value and at(value).is_file():
            values[name] = fingerprint(at(value))
    facts = [stage_of(type(config)), values, code_digest()]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


class Run:
    """The active run, as the steps see it."""

    def __init__(self, run_id: str, unfinished: Path) -> None:
        self.id = run_id
        self.unfinished = unfinished  # where a training leaves what it needs to continue

    def describe(self, name: str, **tags: object) -> None:
        """The run's name, and what it can be searched by."""
        mlflow.set_tag("mlflow.runName", name)
        self.mark(**tags)

    def mark(self, **tags: object) -> None:
        """What the run can be searched by."""
        mlflow.set_tags({key: str(value) for key, value in tags.items()})

    def facts(self, **facts: object) -> None:
        """What sets this run apart on MLflow's compare page, where tags are not shown."""
        mlflow.log_params({f"classifier/{name}": value for name, value in facts.items()})

    def dataset(self, data: str, cache: Cache, split: Split) -> None:
        """Which data, by digest, and who is on which side, by hash; warns where the split leaks."""
        table = cache.table[["file", "patient", "family", "class", "height", "width", "plane"]]
        # MLflow takes what has a colon for an address.
        source = from_pandas(table, source=data.replace(":", "-"), name=Path(data).name, digest=cache.digest)
        log = partial(mlflow.log_input, source, context=split.name, tags={"split_hash": split.hash})
        try:
            log()
        except MlflowException as error:
            if "unique" not in str(error).lower():
                raise
            log()  # another run entered the same data between MLflow's look for them and its own entry
        self.table("split/split.csv", split.table)
        counts = split.table.groupby(["part", "label"]).agg(slices=("file", "size"), families=("family", "nunique"))
        self.table("split/counts.csv", counts.reset_index())
        tags = {"data": data, "data_digest": cache.digest, "split": split.name, "split_hash": split.hash}
        mlflow.set_tags(tags | {"synthetic": str(cache.synthetic).lower()})
        if split.warning:
            mlflow.set_tag("warning", split.warning)
            say(f"WARNING: {split.warning}")

    def audit(self, found: Audit) -> None:
        """Whether the split leaks: as metrics, tables, and words in the run's description."""
        self.metrics({f"audit/{name}": value for name, value in found.facts.items()})
        self.table("audit/pairs.csv", found.pairs)
        self.table("audit/crossing_families.csv", found.crossing)
        mlflow.log_dict({"findings": found.findings} | found.facts, "audit/audit.json")
        heading = "**This split leaks.**" if found.leaks.size or found.crossing.size else "**No leak found.**"
        lines = [heading, *(f"- {finding}" for finding in found.findings)]
        mlflow.set_tag("mlflow.note.content", "Leakage audit: " + "\n".join(lines))

    def metrics(self, metrics: dict[str, float], step: int | None = None, ended: float | None = None) -> None:
        """Log what is finite; `ended`, in seconds since 1970, is when it was measured."""
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        mlflow.log_metrics(finite, step=step, timestamp=None if ended is None else round(1000 * ended))

    def figure(self, path: str, figure: Figure) -> None:
        """Log a picture under this artifact path."""
        with holder.scratch():
            mlflow.log_figure(figure, path, save_kwargs={"dpi": 110})

    def table(self, path: str, table: pd.DataFrame) -> None:
        """Log a table as CSV under this artifact path."""
        with holder.scratch():
            mlflow.log_text(table.to_csv(index=False), path)

    def json(self, path: str, facts: dict[str, Any]) -> None:
        """Log facts as JSON under this artifact path."""
        with holder.scratch():
            mlflow.log_dict(facts, path)

    def page(self, path: str, html: str) -> None:
        """Log an HTML page under this artifact path."""
        with holder.scratch():
            mlflow.log_text(html, path)

    @contextmanager
    def artifact(self, path: str) -> Iterator[Path]:
        """A place to write a file that is logged under this artifact path."""
        with holder.scratch() as folder:
            place = folder / Path(path).name
            yield place
            mlflow.log_artifact(str(place), str(Path(path).parent))

    def report(self, schedule: Schedule, kind: str = "") -> Report:
        """What a training tells MLflow, its metrics' names after `kind`, and the person at the terminal."""
        return Telling(self.metrics, schedule.epochs, schedule.steps_per_epoch, kind)


class Silent(Run):
    """What every process but the first has of a training that several share."""

    def _nothing(self, *_: object, **__: object) -> None:
        pass

    describe = mark = facts = dataset = audit = metrics = figure = table = json = page = _nothing

    @contextmanager
    def artifact(self, path: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / Path(path).name

    def report(self, schedule: Schedule, kind: str = "") -> Report:
        return Silence()


@contextmanager
def start(config: Config) -> Iterator[Run]:
    """A run for this step: the one `mlflow run` opened, the one of an interrupted training, or a new one.

    Inside another run it is that one's child. It ends FINISHED, FAILED where the step did, or KILLED where it was
    interrupted or given up.
    """
    if parallel.rank():
        yield Silent("", Path("nowhere"))
        return
    end_orphans()
    key = step_key(config)
    if not isinstance(config, Training | Sweep):
        with _run(config, key, None):
            yield Run(_id(), Path("nowhere"))
        return
    with unfinished(key) as folder, _run(config, key, run_to_continue(key)):
        yield Run(_id(), folder)


@contextmanager
def _run(config: Config, key: str, run_id: str | None) -> Iterator[None]:
    stage, outer = stage_of(type(config)), mlflow.active_run()
    parent = {MLFLOW_PARENT_RUN_ID: outer.info.run_id} if outer else {}
    mine = holder.claim()
    if known := run_id or os.environ.get("MLFLOW_RUN_ID"):  # before it is RUNNING, lest it be nobody's
        mlflow.MlflowClient().set_tag(get_run(known).info.run_id, holder.TAG, mine)
    with mlflow.start_run(run_id=run_id, nested=outer is not None, tags={holder.TAG: mine}, log_system_metrics=True):
        tags = {"stage": stage, "key": key, "code_version": code_version(), "mlflow.runName": stage}
        mlflow.set_tags(tags | parent)
        values = config.model_dump(mode="json")
        if run_id is None:
            mlflow.log_params({CONFIG + name: value for name, value in values.items() if name != MORE})
        mlflow.log_dict(values, "config.json")
        began = time.monotonic()
        try:
            yield
            # MLflow samples the system each second: a shorter run would have no system metrics at all.
            time.sleep(max(0.0, SAMPLED_AFTER - (time.monotonic() - began)))
        except KeyboardInterrupt:
            mlflow.end_run("KILLED")
            raise
        except GivenUp:
            given_up = _id()
            mlflow.end_run("KILLED")
            mlflow.MlflowClient().set_tag(given_up, PRUNED, "true")
            raise


def _id() -> str:
    run = mlflow.active_run()
    assert run is not None
    return run.info.run_id
