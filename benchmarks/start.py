"""How long `sslbt serve` takes from the start of the process until it answers at /ready.

    python benchmarks/start.py [--python .venv-serve/bin/python] [--starts 11]

The model is the released one: by its name, as a file, and registered, in a registry that is a file and in one that is
a server; a registry is new to a machine at the first start, later starts have its last answer at hand. `processor` is
what the process had used by then: what the start takes where nothing else runs. Medians; cases take turns.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import psutil
from ending import in_a_sentence
from serving import free_port

from sslbt.tracking import registry
from sslbt.tracking.models import RELEASED, onnx_file

NAME = "brain-tumor-classifier"
CHAMPION = f"models:/{NAME}@champion"


def wait(process: subprocess.Popen, address: str) -> None:
    """Until it answers."""
    while True:
        if process.poll() is not None:
            sys.exit(f"{address}: ended before it answered")
        try:
            with urllib.request.urlopen(address):
                return
        except OSError:
            time.sleep(0.005)


@contextmanager
def started(words: list[str], path: str, port: int, environment: dict[str, str]) -> Iterator[subprocess.Popen]:
    """A process that answers at a path of this port."""
    process = subprocess.Popen(
        words, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait(process, f"http://127.0.0.1:{port}{path}")
        yield process
    finally:
        process.terminate()
        process.wait()


def start(python: str, model: str, environment: dict[str, str]) -> tuple[float, float]:
    """Seconds until ready, and of them on a processor."""
    port = free_port()
    began = time.perf_counter()
    with started(
        [python, "-m", "sslbt", "serve", "--model", model, "--port", str(port)], "/ready", port, environment
    ) as own:
        passed, used = time.perf_counter() - began, psutil.Process(own.pid).cpu_times()
    return passed, used.user + used.system


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="of the environment to start in")
    parser.add_argument("--starts", type=int, default=11, help="of each case")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{folder}/mlflow.db"
        mlflow.set_tracking_uri(store)
        mlflow.create_experiment("start", Path(folder, "artifacts").as_uri())
        mlflow.set_experiment("start")
        with mlflow.start_run():
            registry.promote(NAME, registry.log_model(onnx_file(RELEASED), NAME, {}))
        port = free_port()
        server = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--backend-store-uri",
            store,
            "--port",
            str(port),
            "--workers",
            "1",
        ]
        with started(server, "/health", port, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}):
            stores = {"file": store, "server": f"http://127.0.0.1:{port}"}
            registries = [
                (
                    f"registry in a {kind}, {when} start",
                    CHAMPION,
                    {"MLFLOW_TRACKING_URI": uri, "SSLBT_HOME": f"{folder}/{kind}-{when}"},
                )
                for kind, uri in stores.items()
                for when in ("first", "later")
            ]
            cases = [("released", RELEASED, {}), ("file", str(onnx_file(RELEASED)), {}), *registries]
            taken: dict[str, list[tuple[float, float]]] = {name: [] for name, _, _ in cases}
            for turn in range(given.starts + 1):
                for name, model, environment in cases:
                    if "first" in name:
                        shutil.rmtree(environment["SSLBT_HOME"], ignore_errors=True)
                    found = start(given.python, model, environment)
                    if turn:  # the first one of each is not later than another, nor in the disk's cache
                        taken[name].append(found)
    print("| model | s until ready | processor |\n|---|---|---|")
    for name, found in taken.items():
        wall, used = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"| {name} | {wall:.2f} | {used:.2f} |")


if __name__ == "__main__":
    with in_a_sentence():
        main()
