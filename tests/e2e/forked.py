"""Starts entry points as processes that begin where this one is: libraries are loaded once, not in every process.

A job is a process group of its own: the command, what it would start by `bash -c "python -m sslbt ..."`, and a process
that starts these, for forking from one with threads is not safe. Each is killed, and dies, like any other process.

    forked.py       one job per line of JSON: {"words": [...], "folder": ..., "environment": {...}, "said": FILE}

answers with a line of JSON once it runs, {"group": ...}, when it has ended, and, asked by an empty line, {"code": ...}.
"""

import gc
import importlib
import json
import os
import pkgutil
import shlex
import socket
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from forks import FIT_STEPS, RELEASED
from mlflow.projects.backend import local
from sqlalchemy.orm import configure_mappers

import serve
import sslbt.steps
from sslbt import cli
from sslbt.evaluation import outliers, robustness
from sslbt.tracking import models

LATER = (  # what the first optimiser, run, export and scores load
    "mlflow.pyfunc",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.system_metrics.system_metrics_monitor",
    "onnxscript.function_libs.torch_lib.ops",
    "pyarrow.dataset",
    "torch._dynamo",
    "torch.onnx._internal.exporter._core",
)
PICTURES = 12  # of each kind that an evaluation asks about; it is other tests that ask what for


def load() -> None:
    """Everything that entry points import, before the first of them is started."""
    for package in (sslbt.steps, serve):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    for name in LATER:
        importlib.import_module(name)
    configure_mappers()
    gc.collect()
    gc.freeze()  # what is loaded is not looked through, nor copied, by every process
    outliers.fit = partial(outliers.fit, steps=FIT_STEPS)
    outliers.EACH = robustness.MOST = PICTURES


def become(words: list[str], folder: str, environment: dict[str, str]) -> int:
    """What `sslbt WORDS` does in this folder."""
    del sys.modules["__main__"].__file__  # or what reads slices, in processes of its own, would begin with this file
    os.environ.update(environment)
    os.chdir(folder)
    tempfile.tempdir = None
    if RELEASED in environment:
        models.RELEASED_FOLDER = Path(environment[RELEASED])
    return cli.main(words)


class Starter:
    """Starts the steps of a job from a process that has no threads."""

    def __init__(self) -> None:
        self.end, other = socket.socketpair()
        if os.fork():
            other.close()
            return
        self.end.close()
        asked = other.makefile("r")
        for line in asked:
            if not (number := os.fork()):
                sys.exit(become(**json.loads(line)))
            other.sendall(f"{os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])}\n".encode())
        os._exit(0)

    def popen(self, words: list[str], cwd: str, env: dict[str, str], close_fds: bool) -> "Step":
        """In place of `subprocess.Popen` in MLflow's projects."""
        assert words[:2] == ["bash", "-c"]
        program, *rest = shlex.split(words[2])
        assert (program, rest[:2]) == ("python", ["-m", "sslbt"])
        self.end.sendall(json.dumps({"words": rest[2:], "folder": cwd, "environment": env}).encode() + b"\n")
        return Step(self.end)


class Step:
    """What MLflow asks of a process."""

    pid = 0

    def __init__(self, end: socket.socket) -> None:
        self.end = end

    def wait(self) -> int:
        return int(self.end.makefile("r").readline())


def job(words: list[str], folder: str, environment: dict[str, str], said: str) -> int:
    """The command, what it says in a file."""
    out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    if words[0] == "main":  # which has steps to start
        starter = Starter()
        local.subprocess = type("Subprocess", (), vars(subprocess) | {"Popen": staticmethod(starter.popen)})
    return become(words, folder, environment)


if __name__ == "__main__":
    load()
    print(json.dumps({"loaded": True}), flush=True)
    for line in sys.stdin:
        if not (number := os.fork()):
            os.close(0)
            os.setpgid(0, 0)
            sys.exit(job(**json.loads(line)))
        os.setpgid(number, number)  # whoever comes first
        print(json.dumps({"group": number}), flush=True)
        os.waitid(os.P_PID, number, os.WEXITED | os.WNOWAIT)
        print(json.dumps({"ended": number}), flush=True)
        next(sys.stdin)  # until then it keeps its number, so that no other can be killed in its place
        print(json.dumps({"code": os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])}), flush=True)
