"""How fast pretraining is, beside bare compute and beside the same job with MONAI and with kornia.

    python benchmarks/training.py [FOLDER] [--size 96 --batch 64 --width 32 --steps 31 --rounds 7 --compile]

FOLDER holds .mat files; without it, phantoms. Two views of a slice are a pair; `batch` pairs are a step, on which the
net sees twice as many slices. In one process, by turns, since a machine's speed drifts; the median of rounds counts:

(a) bare: the net, loss, gradient and AdamW on tensors made beforehand;
(b) ours: `sslbt.training.loop.train` as the step calls it: slices from the cache, augmentation, logging to MLflow, a
    checkpoint every round; and with the probe of validation patients as often as a training of the preset looks;
(c) MONAI with a DataLoader, and kornia: same net, loss, optimiser and precision, pixels already small and in memory.

Peak memory comes from a process of its own for each.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext

import torch
from ending import in_a_sentence
from job import Bare, Job, clock
from memory import PeakMemory

from sslbt.config import PretrainContrastive
from sslbt.evaluation.probe import PROBES
from sslbt.parameters import preset_values
from sslbt.training.loop import Report, best_device, mixed_precision
from sslbt.training.state import Epoch

OURS = "ours"
WAYS = {
    "bare": "(a) bare compute",
    OURS: "(b) ours",
    "probed": "(b) ours, with the probe",
    "monai": "(c) MONAI, {workers} workers",
    "kornia": "(c) kornia, no bias field",
}
Way = Callable[[], None]


class Turns:
    """Tells what ours would; after each of its rounds the others have theirs."""

    def __init__(self, telling: Report, others: dict[str, Way]) -> None:
        self.telling, self.others = telling, others
        self.seconds: dict[str, list[float]] = {name: [] for name in (OURS, *others)}

    def begin(self, history: list[Epoch], step: int) -> None:
        self.telling.begin(history, step)
        self.began = clock()

    def step(self, epoch: int, step: int, loss: float) -> None:
        self.telling.step(epoch, step, loss)

    def epoch(self, epoch: Epoch) -> None:
        self.telling.epoch(epoch)
        self.seconds[OURS].append(clock() - self.began)
        for name, way in self.others.items():
            began = clock()
            way()
            self.seconds[name].append(clock() - began)
        self.began = clock()

    def end(self) -> None:
        self.telling.end()


def ours(job: Job, others: dict[str, Way]) -> tuple[dict[str, list[float]], list[float]]:
    """Seconds of every way's rounds, and of every look of the probe; the first rounds warm up and are left out."""
    from sslbt.steps.common import schedule_of, validation  # not above: the others need no MLflow
    from sslbt.tracking.run import start
    from sslbt.training.loop import train

    looks = []

    def probe(epoch: int, model: torch.nn.Module) -> dict[str, float]:
        began = clock()
        found = watched.probe(epoch, model)
        looks.append(clock() - began)
        return found

    with start(job.cfg) as run:
        task, watched = job.task(), validation(job.cache, job.split, job.cfg)
        watched.probe.epochs = set(range(job.cfg.epochs))
        schedule = schedule_of(job.cfg, task.steps)
        turns = Turns(run.report(schedule), others)
        train(task, schedule, run.unfinished, [probe], turns)
    return {name: seconds[1:] for name, seconds in turns.seconds.items()}, looks[1:]


def other(name: str, job: Job, workers: int = 0) -> Way:
    """Any way but ours, set up."""
    if name == "bare":
        return Bare(job)
    from peers import Kornia, Monai  # not above: the others do without

    return Kornia(job) if name == "kornia" else Monai(job, workers)


def alone(name: str, job: Job, workers: int) -> None:
    """Prints what one way holds at most in two rounds, in bytes, and of it on the GPU."""
    with PeakMemory() as memory:
        if name == OURS:
            ours(job, {})
        else:
            way = other(name, job, workers)
            way()
            way()
    print(json.dumps([memory.peak, torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0]))


def peak(name: str, workers: int) -> tuple[float, float]:
    """The same in MiB, from a process of its own."""
    command = [sys.executable, *sys.argv, "--alone", name, "--workers", str(workers)]
    held, on_gpu = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return held / 2**20, on_gpu / 2**20


def workers_of(job: Job) -> int:
    """With how many worker processes MONAI is fastest here."""
    found = {}
    for workers in sorted({0, 1, 2, os.cpu_count() or 1}):
        way = other("monai", job, workers)
        way()
        began = clock()
        way()
        found[workers] = clock() - began
    return min(found, key=found.__getitem__)


def compare(job: Job) -> None:
    """Measure all ways and print how they compare."""
    workers = workers_of(job)
    seconds, looks = ours(job, {name: other(name, job, workers) for name in ("bare", "monai", "kornia")})
    share = PROBES / preset_values(PretrainContrastive, job.cfg.preset)["epochs"]  # of a training's epochs
    loop = [whole - look for whole, look in zip(seconds[OURS], looks, strict=True)]
    rounds = seconds | {OURS: loop, "probed": [one + share * statistics.median(looks) for one in loop]}

    slices, device = 2 * job.cfg.num_pairs, best_device()
    rate = {name: slices / statistics.median(own) for name, own in rounds.items()}
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} cores"
    precision = "float32" if isinstance(mixed_precision(device), nullcontext) else "bfloat16"
    precision += ", ours compiled" if job.cfg.compile else ""
    print(f"{where}, {precision}; {job.cfg.size} px, {job.cfg.batch} pairs a step, width {job.cfg.width}; ", end="")
    print(f"{len(loop)} rounds of {job.cfg.num_pairs // job.cfg.batch} steps; {len(job.cache.table)} slices\n")
    print("| way | slices/s | of bare | ours is | peak memory, MiB |")
    print("|---|---|---|---|---|")
    for name, words in WAYS.items():
        memory = peak(name, workers) if name in seconds else ()
        held = " + GPU ".join(f"{amount:.0f}" for amount in memory if amount)
        faster = f"{rate[OURS] / rate[name]:.2f} x" if name in ("monai", "kornia") else ""
        words = words.format(workers=workers)
        print(f"| {words} | {rate[name]:.0f} | {100 * rate[name] / rate['bare']:.0f} % | {faster} | {held} |")
    print(f"\na look of the probe: {statistics.median(looks):.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default="sample")
    for name, default in (("size", 96), ("batch", 64), ("width", 32), ("steps", 31), ("rounds", 7), ("workers", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--compile", action="store_true", help="ours with compile=true")
    parser.add_argument("--alone", choices=["bare", OURS, "monai", "kornia"], help="measure this way's memory only")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        if not given.alone:  # its children find the slices where it left them
            os.environ["SSLBT_HOME"] = home
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{home}/mlflow.db"
        cfg = PretrainContrastive.build(
            data=given.folder,
            pairs="views",
            size=given.size,
            batch=given.batch,
            width=given.width,
            compile=given.compile,
            num_pairs=given.steps * given.batch,
            epochs=2 if given.alone else 1 + given.rounds,  # the first warms up
        )
        job = Job.of(cfg)
        alone(given.alone, job, given.workers) if given.alone else compare(job)


if __name__ == "__main__":
    with in_a_sentence():
        main()
