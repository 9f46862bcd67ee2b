"""How long it takes to find the best of many evaluations: the figure in docs/registry.md.

    python benchmarks/finding.py [--runs 10000]

One run with as many metrics, parameters and tags as an evaluation has, copied in a database of its own; beside it the
least that any search must do, a bare request for the highest value of the metric.
"""

import argparse
import sqlite3
import tempfile
import time
import uuid

import mlflow
from ending import in_a_sentence
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from sslbt.tracking.registry import find_best

METRIC = "test/patient_balanced_accuracy"
METRICS, PARAMETERS, TAGS, ROUNDS = 150, 30, 20, 5


def multiply(store: str, run_id: str, count: int) -> None:
    """So many copies of a run in a sqlite store, by its tables: through MLflow it would take minutes."""
    database = sqlite3.connect(store.removeprefix("sqlite:///"))
    names = [(uuid.uuid4().hex,) for _ in range(count)]
    for table in ("runs", "latest_metrics", "params", "tags"):
        columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
        taken = ", ".join("?" if name == "run_uuid" else name for name in columns)
        select = f"SELECT {taken} FROM {table} WHERE run_uuid = '{run_id}'"
        database.executemany(f"INSERT INTO {table} ({', '.join(columns)}) {select}", names)
    database.execute("UPDATE latest_metrics SET value = abs(random() % 100000) / 100000.0")
    database.commit()
    database.close()


def evaluation(client: MlflowClient, experiment: str) -> str:
    """A run that looks like one of `evaluate`."""
    run = client.create_run(experiment).info.run_id
    metrics = [Metric(METRIC, 0.5, 0, 0), *(Metric(f"test/more_{i}", 0.5, 0, 0) for i in range(METRICS - 1))]
    known = {"stage": "evaluate", "split": "patient", "data_digest": "d" * 16, "split_hash": "s" * 16}
    tags = [RunTag(*item) for item in known.items()] + [RunTag(f"more_{i}", "x" * 30) for i in range(TAGS - 4)]
    client.log_batch(run, metrics, [Param(f"config/{i}", "x" * 30) for i in range(PARAMETERS)], tags)
    client.set_terminated(run)
    return run


def quickest(work) -> float:
    """Seconds, the least of some rounds."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{folder}/mlflow.db"
        mlflow.set_tracking_uri(store)
        client = MlflowClient()
        experiment = client.create_experiment("many", artifact_location=f"{folder}/artifacts")
        multiply(store, evaluation(client, experiment), given.runs - 1)
        request = "SELECT run_uuid, max(value) FROM latest_metrics WHERE key = ?"
        bare = sqlite3.connect(f"{folder}/mlflow.db")
        limit = quickest(lambda: bare.execute(request, (METRIC,)).fetchall())
        ours = quickest(lambda: find_best(experiment, METRIC))
    print(f"{given.runs:,} evaluations: the best is found in {ours:.2f} s; one bare request takes {limit:.2f} s")


if __name__ == "__main__":
    with in_a_sentence():
        main()
