"""How fast the service answers, beside its limit and other servers of the same model, in one run.

    python benchmarks/serving.py DATA [--peers .venv-peers/bin/python] [--seconds 10]

DATA are slices, turned into PNG of 512 x 512 first; the model is the released one. The limit is decoding and scoring in
this process, a thread a core. Servers are processes of their own; their client is a process too, on the same machine,
and takes its share of the cores. Ours gets a file as it is (`/predict`), as tensor (`/v2`) and as MLflow's JSON
(`/invocations`); the others get base64 in JSON, as they are made for. All take turns, the best of the rounds counts.
"""

import argparse
import base64
import contextlib
import io
import json
import multiprocessing
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import islice
from pathlib import Path

import mlflow
import numpy as np
from ending import in_a_sentence
from PIL import Image

from serve.package import log_arguments
from serve.pictures import from_bytes
from serve.session import Classifier
from sslbt.cores import cores
from sslbt.data.files import iterate
from sslbt.data.formats import decode
from sslbt.tracking.models import onnx_file

CORES = cores()
FILES, CLIENTS, ROUNDS = 64, 16, 3
HERE = Path(__file__).parent


@dataclass(eq=False)
class Server:
    """Whom to ask, and how."""

    name: str
    command: list[str]
    path: str
    body: Callable[[bytes], bytes]
    kind: str  # content type
    environment: dict[str, str]


def pngs(data: Path) -> list[bytes]:
    """Real slices as 8-bit PNG files, every twentieth of the data."""
    files = []
    for name, read in islice(iterate(data), 0, FILES * 20, 20):
        pixels = decode(read(), name).astype(float)
        grey = Image.fromarray((255 * (pixels - pixels.min()) / np.ptp(pixels)).astype(np.uint8)).resize((512, 512))
        buffer = io.BytesIO()
        grey.save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files


def in_process(model: Path, files: list[bytes], threads: int, seconds: float) -> list[float]:
    """What each picture took, decoded and scored by so many threads of this process."""
    taken: list[float] = []
    until = time.perf_counter() + seconds

    def work(own: Classifier, first: int) -> None:
        place = first
        while (began := time.perf_counter()) < until:
            list(own.rows([from_bytes(files[place % len(files)], "body")]))
            taken.append(time.perf_counter() - began)
            place += 1

    classifiers = [Classifier.load(model) for _ in range(threads)]
    workers = [threading.Thread(target=work, args=(own, 7 * number)) for number, own in enumerate(classifiers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return taken


def ask(port: int, path: str, kind: str, bodies: list[bytes], clients: int, seconds: float, queue) -> None:
    """Put what each answer took into the queue; every client has one connection and asks as fast as it is answered."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the process that asked for this one
    taken: list[float] = []
    until = time.perf_counter() + seconds

    def client(first: int) -> None:
        place, connection = first, HTTPConnection("127.0.0.1", port)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while (began := time.perf_counter()) < until:
            connection.request("POST", path, bodies[place % len(bodies)], {"Content-Type": kind})
            answer = connection.getresponse()
            said = answer.read()
            assert answer.status == 200, said
            taken.append(time.perf_counter() - began)
            place += 1

    threads = [threading.Thread(target=client, args=(7 * number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queue.put(taken)


def from_outside(port: int, server: Server, files: list[bytes], clients: int, seconds: float) -> list[float]:
    """What each answer took a client in a process of its own."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    bodies = [server.body(file) for file in files]
    process = context.Process(target=ask, args=(port, server.path, server.kind, bodies, clients, seconds, queue))
    process.start()
    taken = queue.get(timeout=seconds + 60)
    process.join()
    return taken


def free_port() -> int:
    """One that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return unused.getsockname()[1]


@contextlib.contextmanager
def started(server: Server) -> Iterator[int]:
    """A server in a process of its own, ready; its port."""
    port = free_port()
    command = [str(port) if word == "PORT" else word for word in server.command]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, env=os.environ | server.environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            until = time.monotonic() + 120
            while not answers(port):
                if process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    raise SystemExit(f"{server.name} did not start:\n{log.read().decode()[-2000:]}")
                time.sleep(0.2)
            yield port
        finally:
            process.terminate()  # BentoML's workers are no children of this group: it has to end them itself
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/health")
        return connection.getresponse().status < 500
    return False


def servers(model: Path, packed: Path, peers: Path | None) -> Iterator[Server]:
    """Ours in three ways, MLflow's and, where their environment is given, LitServe and BentoML."""

    def base64_of(wrap: Callable[[str], object]) -> Callable[[bytes], bytes]:
        return lambda data: json.dumps(wrap(base64.b64encode(data).decode())).encode()

    bin = Path(sys.executable).parent
    ours = [sys.executable, "-m", "sslbt", "serve", "--model", str(model), "--port", "PORT"]
    table = base64_of(lambda text: {"dataframe_split": {"columns": ["image"], "data": [[text]]}})
    tensor = base64_of(lambda text: {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}]})
    json_, root = "application/json", {"PYTHONPATH": str(HERE.parent)}
    yield Server("ours, a file", ours, "/predict", bytes, "application/octet-stream", {})
    yield Server("ours, MLflow's JSON", ours, "/invocations", table, json_, {})
    yield Server("ours, /v2 JSON", ours, "/v2/models/brain-tumor-classifier/infer", tensor, json_, {})
    mlflow_ = ["models", "serve", "-m", str(packed), "--env-manager", "local", "--port", "PORT"]
    path = {"PATH": f"{bin}:{os.environ['PATH']}"}
    yield Server("mlflow models serve", [str(bin / "mlflow"), *mlflow_], "/invocations", table, json_, path)
    several = [str(bin / "mlflow"), *mlflow_, "-w", str(CORES)]
    yield Server("mlflow models serve, a worker a core", several, "/invocations", table, json_, path)
    if peers:
        one = base64_of(lambda text: {"image": text})
        lit = [str(peers), str(HERE / "serving_litserve.py"), "PORT", str(model)]
        yield Server("LitServe", lit, "/predict", one, json_, root)
        bento = ["serve", "serving_bentoml:Scores", "--working-dir", str(HERE), "--host", "127.0.0.1", "--port", "PORT"]
        command = [str(peers.parent / "bentoml"), *bento]
        yield Server("BentoML", command, "/predict", one, json_, root | {"CLASSIFIER": str(model)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DATA", type=Path)
    parser.add_argument("--peers", type=Path, help="Python of an environment with requirements-peers.txt")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    given = parser.parse_args()
    model, files = onnx_file("released"), pngs(given.data)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        packed = Path(folder, "model")
        with log_arguments(model) as arguments:
            mlflow.pyfunc.save_model(packed, **{k: v for k, v in arguments.items() if k != "name"})
        ports = {server: stack.enter_context(started(server)) for server in servers(model, packed, given.peers)}
        limit, alone = [], []
        rates: dict[Server, list[float]] = {server: [] for server in ports}
        medians: dict[Server, list[float]] = {server: [] for server in ports}
        tails: dict[Server, list[float]] = {server: [] for server in ports}
        for _ in range(ROUNDS):
            limit.append(len(in_process(model, files, CORES, given.seconds)) / given.seconds)
            alone.append(statistics.median(in_process(model, files, 1, given.seconds / 2)))
            for server, port in ports.items():
                many = from_outside(port, server, files, CLIENTS, given.seconds)
                rates[server].append(len(many) / given.seconds)
                tails[server].append(float(np.percentile(many, 99)))
                medians[server].append(statistics.median(from_outside(port, server, files, 1, given.seconds / 2)))
        print(f"limit: {max(limit):.0f} pictures a second on {CORES} cores; one alone {1000 * min(alone):.2f} ms\n")
        print(
            f"| server | {CLIENTS} clients, a second | of the limit | 99 % within | one client, median | in-process |"
        )
        print("|---|---|---|---|---|---|")
        for server in ports:
            rate, median, tail = max(rates[server]), min(medians[server]), min(tails[server])
            print(
                f"| {server.name} | {rate:.0f} | {rate / max(limit):.0%} | {1000 * tail:.0f} ms | "
                f"{1000 * median:.2f} ms | x {median / min(alone):.2f} |"
            )


if __name__ == "__main__":
    with in_a_sentence():
        main()
