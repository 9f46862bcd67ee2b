"""One MLflow run: what a step reports, and the facts every run carries."""

import hashlib
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pandas as pd
from matplotlib.figure import Figure
from mlflow.data.pandas_dataset import from_pandas

from sslbt.config import Config, Data, Main, Prepare, stage_of
from sslbt.data.audit import Audit
from sslbt.data.cache import Cache, prepare
from sslbt.data.files import fingerprint
from sslbt.data.source import cache_folder, locate
from sslbt.data.splits import Split
from sslbt.terminal import say
from sslbt.tracking.code import code_digest, code_version

SAMPLED_AFTER = 2.0  # seconds
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
    for name, value in values.items():
        if isinstance(value, str) and value and Path(value).expanduser().is_file():
            values[name] = fingerprint(Path(value).expanduser())
    facts = [stage_of(type(config)), values, code_digest()]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


class Run:
    """The active run, as the steps see it."""

    def __init__(self, run_id: str, key: str) -> None:
        self.id = run_id
        self.key = key

    def describe(self, name: str, **tags: object) -> None:
        """The run's name, and what it can be searched by."""
        mlflow.set_tags({"mlflow.runName": name} | {key: str(value) for key, value in tags.items()})

    def facts(self, **facts: object) -> None:
        """What sets this run apart on MLflow's compare page, where tags are not shown."""
        mlflow.log_params({f"classifier/{name}": value for name, value in facts.items()})

    def dataset(self, data: str, cache: Cache, split: Split) -> None:
        """Which data, by digest, and who is on which side, by hash; warns where the split leaks."""
        table = cache.table[["file", "patient", "family", "class", "height", "width", "plane"]]
        # MLflow takes what has a colon for an address.
        source = from_pandas(table, source=data.replace(":", "-"), name=Path(data).name, digest=cache.digest)
        mlflow.log_input(source, context=split.name, tags={"split_hash": split.hash})
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

    def metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log what is finite."""
        mlflow.log_metrics({name: value for name, value in metrics.items() if math.isfinite(value)}, step=step)

    def figure(self, path: str, figure: Figure) -> None:
        """Log a picture under this artifact path."""
        mlflow.log_figure(figure, path, save_kwargs={"dpi": 110})

    def table(self, path: str, table: pd.DataFrame) -> None:
        """Log a table as CSV under this artifact path."""
        mlflow.log_text(table.to_csv(index=False), path)

    def page(self, path: str, html: str) -> None:
        """Log an HTML page under this artifact path."""
        mlflow.log_text(html, path)

    @contextmanager
    def artifact(self, path: str) -> Iterator[Path]:
        """A place to write a file that is logged under this artifact path."""
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / Path(path).name
            yield place
            mlflow.log_artifact(str(place), str(Path(path).parent))

    @property
    def unfinished(self) -> Path:
        """Where a training of this step leaves what it needs to continue."""
        return cache_folder() / "unfinished" / f"{self.key}.safetensors"

    def epochs(self, total: int) -> Callable[[int, dict[str, float]], None]:
        """A reporter for a training of so many epochs: logs each one's metrics and says how far, how good, how long."""

        def report(epoch: int, metrics: dict[str, float]) -> None:
            self.metrics(metrics, step=epoch)
            left = metrics["train/seconds"] * (total - epoch - 1)
            good = [f"{name.split('/')[1]} {value:.3f}" for name, value in metrics.items() if name.startswith("probe/")]
            say(f"epoch {epoch + 1}/{total}  loss {metrics['train/loss']:.4f}  {left:.0f} s left  {'  '.join(good)}")

        return report


@contextmanager
def start(config: Config) -> Iterator[Run]:
    """A run for this step: the one `mlflow run` opened, or a new one.

    It ends FINISHED, FAILED where the step did, or KILLED where it was interrupted.
    """
    stage = stage_of(type(config))
    key = step_key(config)
    with mlflow.start_run(log_system_metrics=True) as active:
        mlflow.set_tags({"stage": stage, "key": key, "code_version": code_version(), "mlflow.runName": stage})
        values = config.model_dump(mode="json")
        mlflow.log_params({CONFIG + name: value for name, value in values.items()})
        mlflow.log_dict(values, "config.json")
        began = time.monotonic()
        try:
            yield Run(active.info.run_id, key)
            # MLflow samples the system each second: a shorter run would have no system metrics at all.
            time.sleep(max(0.0, SAMPLED_AFTER - (time.monotonic() - began)))
        except KeyboardInterrupt:
            mlflow.end_run("KILLED")
            raise
