"""Ten minutes at full load while another model takes over each minute: is an answer wrong or lost, does memory grow?

    python benchmarks/soak.py DATA [--minutes 10]

A registry of its own (sqlite, in a temporary folder) holds two versions of the released classifier that differ in when
they abstain; `champion` moves from one to the other each minute, as `promote` and `rollback` move it. Clients ask
`sslbt serve --model models:/...@champion` without a pause and compare every answer with what the version that it names
answers in this process. Afterwards far more connections than fit ask at once: how quick is a 503, how long do accepted
requests take?
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import mlflow
import onnx
import psutil
from ending import in_a_sentence
from mlflow import MlflowClient
from serving import CORES, Server, pngs, started

from serve.package import log_arguments
from serve.pictures import from_bytes
from serve.session import Classifier, Row
from sslbt.tracking.models import onnx_file

NAME = "brain-tumor-classifier"
CLIENTS, FLOOD = 16, 400
ABSTAINS = {"1": "0.05", "2": "0.95"}  # plausible_above by version


@dataclass
class Seen:
    """What clients were told."""

    answers: Counter = field(default_factory=Counter)  # by version
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)


def register(folder: Path) -> dict[str, Path]:
    """Both versions into the registry; their files."""
    files = {}
    for version, threshold in ABSTAINS.items():
        graph = onnx.load(onnx_file("released"))
        facts = {prop.key: prop.value for prop in graph.metadata_props}
        onnx.helper.set_model_props(graph, facts | {"run_id": version * 32, "plausible_above": threshold})
        files[version] = folder / version / "classifier.onnx"
        files[version].parent.mkdir()
        onnx.save(graph, files[version])
        with log_arguments(files[version]) as arguments, mlflow.start_run():
            mlflow.pyfunc.log_model(name="model", registered_model_name=NAME, **arguments)
    return files


def same(row: dict[str, Any], expected: Row) -> bool:
    """Whether an answer is the one expected, as far as pictures scored together may differ in the last digits."""
    return (row["label"], row["abstain"]) == (expected["label"], expected["abstain"]) and abs(
        row["confidence"] - expected["confidence"]
    ) < 1e-4


def client(port: int, files: list[bytes], expected: dict[str, list[Row]], until: float, first: int, seen: Seen) -> None:
    """Ask until then, and compare."""
    connection, place = HTTPConnection("127.0.0.1", port, timeout=60), first
    while time.monotonic() < until:
        number = place % len(files)
        place += 1
        began = time.perf_counter()
        try:
            connection.request("POST", "/predict", files[number])
            response = connection.getresponse()
            answer = json.loads(response.read())
            version, (row,) = answer["model"]["model_version"], answer["predictions"]
        except (OSError, ValueError, KeyError) as error:
            seen.lost.append(repr(error))
            connection.close()
            continue
        seen.seconds.append(time.perf_counter() - began)
        seen.answers[version] += 1
        if not same(row, expected[version][number]):
            seen.wrong.append(f"file {number}, version {version}: {row}, not {expected[version][number]}")


def flood(port: int, file: bytes) -> tuple[list[float], list[float]]:
    """Many connections ask once at once: seconds of those answered, and of those refused."""
    taken: dict[int, list[float]] = {200: [], 503: []}
    gate = threading.Barrier(FLOOD)

    def ask() -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        connection.connect()
        gate.wait(60)  # so that one that fails is not waited for
        began = time.perf_counter()
        connection.request("POST", "/predict", file)
        response = connection.getresponse()
        response.read()
        taken[response.status].append(time.perf_counter() - began)

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(FLOOD)]  # an interrupt waits for none
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken[200], taken[503]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DATA", type=Path)
    parser.add_argument("--minutes", type=int, default=10)
    given = parser.parse_args()
    if given.minutes < 1:
        parser.error("--minutes: at least 1")
    files = pngs(given.data)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
        mlflow.create_experiment("soak", artifact_location=(folder / "artifacts").as_uri())
        mlflow.set_experiment("soak")
        versions = register(folder)
        expected = {}
        for version, path in versions.items():
            own = Classifier.load(path)
            expected[version] = list(own.rows(from_bytes(file, "body") for file in files))
        registry = MlflowClient()
        registry.set_registered_model_alias(NAME, "champion", "1")
        command = [sys.executable, "-m", "sslbt", "serve", "--model", f"models:/{NAME}@champion", "--port", "PORT"]
        server = Server("ours", command, "/predict", bytes, "", {"SSLBT_HOME": str(folder / "home")})
        with started(server) as port:
            service = next(child for child in psutil.Process().children() if "serve" in child.cmdline())
            seen, until = Seen(), time.monotonic() + 60 * given.minutes
            threads = [
                threading.Thread(target=client, args=(port, files, expected, until, 7 * number, seen), daemon=True)
                for number in range(CLIENTS)
            ]
            for thread in threads:
                thread.start()
            for minute in range(given.minutes):
                for _ in range(12):
                    time.sleep(5)
                    seen.megabytes.append(service.memory_info().rss / 2**20)
                registry.set_registered_model_alias(NAME, "champion", str(1 + (minute + 1) % 2))
            for thread in threads:
                thread.join()
            answered, refused = flood(port, files[0])
    if not seen.seconds:
        raise SystemExit(f"no answer in {given.minutes} minutes; the first of {len(seen.lost)} lost: {seen.lost[0]}")
    steady = seen.megabytes[12:] or seen.megabytes  # after the first minute: the second model came then
    print(
        f"{sum(seen.answers.values())} answers in {given.minutes} minutes on {CORES} cores, by version "
        f"{dict(seen.answers)}: {len(seen.wrong)} wrong, {len(seen.lost)} lost; median "
        f"{1000 * statistics.median(seen.seconds):.0f} ms; memory {steady[0]:.0f} MiB after the first minute, "
        f"{steady[-1]:.0f} at the end, at most {max(steady):.0f}"
    )
    for problem in [*seen.wrong[:3], *seen.lost[:3]]:
        print(problem)
    print(
        f"{FLOOD} at once: {len(answered)} answered, the last after {max(answered, default=0):.2f} s; "
        f"{len(refused)} refused, the last after {max(refused, default=0):.2f} s"
    )
    sys.exit(bool(seen.wrong or seen.lost))


if __name__ == "__main__":
    with in_a_sentence():
        main()
