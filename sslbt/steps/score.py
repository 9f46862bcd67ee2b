"""`score`: class and probabilities for every picture of a folder, zip or table."""

import math
import shutil
from pathlib import Path

import pandas as pd
import pyarrow.csv
import pyarrow.parquet

from serve.batch import score as score_batch
from serve.batch_summary import Summary
from sslbt.config import Score
from sslbt.data.slices import first_line
from sslbt.data.source import at
from sslbt.terminal import say
from sslbt.tracking.models import onnx_file
from sslbt.tracking.served import REGISTRY, latest, parts

SMALL = 2**23  # bytes: a table up to this is in the run as a whole
FIRST = 1000  # rows of a larger one


def score(cfg: Score) -> None:
    """Write a row per slice: file, label, probabilities, confidence, whether to abstain and why; then log a run of it.

    The run is opened when the table is there: no store that is slow, full or down may cost it.
    """
    output = at(cfg.output)
    if cfg.model.startswith(REGISTRY):
        version, model = latest(cfg.model)
        registered = f"{parts(cfg.model)[0]}/{version}"
    else:
        model, registered = onnx_file(cfg.model), ""
    summary = score_batch(model, at(cfg.input), output)
    say(f"{output}: {summary}")
    say(drift(summary))
    try:
        log(cfg, summary, registered, output)
    except ModuleNotFoundError as error:
        say(f"no run of it in MLflow: that needs all of requirements.txt, and {error.name} is missing")
    except Exception as error:  # of any library between here and the store
        from sslbt.tracking.store import trouble  # MLflow is there now

        said = trouble(error) or first_line(error)
        say(f"WARNING: {output} is complete, but MLflow has no whole run of it ({said})")


def log(cfg: Score, summary: Summary, registered: str, output: Path) -> None:
    """Log which model it was, counts, a picture of confidence, and the table or its first rows."""
    from sslbt.evaluation import score_figure  # not above: torch, which scoring needs not wait for
    from sslbt.tracking.run import start

    with start(cfg) as run:
        name = Path(cfg.input).name
        run.describe(
            f"score {name}",
            model=cfg.model,
            registered=registered,
            classifier=summary.about["run_id"],
            **{
                f"trained_on_{fact}": summary.about.get(fact, "") for fact in ("data_digest", "split_hash", "synthetic")
            },
            model_code_version=summary.about.get("code_version", ""),
        )
        run.metrics({f"score/{fact}": value for fact, value in figures(summary).items()})
        run.mark(**{"mlflow.note.content": f"{summary}. {drift(summary)}"})
        title = f"{name}: {summary.rows:,} slices, {summary.failed:,} of them not scored"
        run.figure("pictures/confidence.png", score_figure.confidence(summary.confidence, title))
        if output.stat().st_size <= SMALL:
            with run.artifact(f"scores/{output.name}") as place:
                shutil.copyfile(output, place)
        else:
            run.table("scores/first_rows.csv", first_rows(output))


def drift(summary: Summary) -> str:
    """Whether the slices are like those that the classifier was judged on, in a sentence."""
    return summary.drift.report().sentence() if summary.drift else f"Nothing is said of drift: {summary.no_drift}."


def figures(summary: Summary) -> dict[str, float]:
    """What the table comes to."""
    answered = max(1, summary.labels.total())
    return {
        "files": summary.files,
        "slices": summary.rows,
        "failed": summary.failed,
        "abstained": summary.abstained,
        **{f"share_{name}": count / answered for name, count in summary.labels.items()},
        "mean_confidence": summary.mean_confidence,
        "files_per_second": summary.scored / summary.seconds or math.nan,  # nothing was left to score
        **(summary.drift.report().as_metrics() if summary.drift else {}),
    }


def first_rows(table: Path) -> pd.DataFrame:
    """As many as a person may look through."""
    if table.suffix.lower() == ".csv":
        return pd.read_csv(table, nrows=FIRST)
    return next(pyarrow.parquet.ParquetFile(table).iter_batches(FIRST)).to_pandas()
