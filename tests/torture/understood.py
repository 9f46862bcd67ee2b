"""Whether a shown command is understood by the program it is for: asked of the program's own parser, nothing runs."""

import argparse
import contextlib
import importlib.util
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import click
import torch.distributed.run
import yaml
from fastapi import FastAPI
from mlflow.cli import cli as mlflow_commands
from shown import ROOT
from starlette.routing import Match

from serve.app import create_app
from serve.current import Current, Model
from serve.session import Classifier
from sslbt.cli import parse
from sslbt.errors import UserError
from sslbt.tracking.models import onnx_file

PROJECT = yaml.safe_load((ROOT / "MLproject").read_text())
NAME = "NAME"  # stands for any entry point
UNASKED = (".", "cd", "export", "for", "printf", "wait", "id", "openssl")  # no parser to ask; the day runs them


def check(call: list[str]) -> bool:
    """Whether anything here knows the program at all.

    Raises:
        Exception: the program would refuse these words.
    """
    program, *words = call
    name = re.sub(r"^python[0-9.]+$", "python", program.rsplit("/", 1)[-1]) if program != "." else program
    if name in UNASKED:
        return True
    if name not in PARSERS:
        return False
    PARSERS[name](filled(words))
    return True


def filled(words: list[str]) -> list[str]:
    """The words without a synopsis's brackets and dots; the same word in capitals (RUN RUN) means another each time."""
    kept = [re.sub(r"^\[|\]$", "", word).removesuffix("]").removesuffix("...") for word in words]
    return [f"{word}-{number}" if word == "RUN" else word for number, word in enumerate(kept) if word]


class Lacking(Exception):
    """Nothing is wrong but that something is left out, as a sentence may."""


def sslbt(words: list[str]) -> None:
    """Names and values by `sslbt`'s own configuration.

    Raises:
        Lacking: a parameter without a default is not given.
    """
    if words[0] == NAME:
        return
    try:
        parse(words)
    except UserError as error:
        raise Lacking(error) if " is missing; " in str(error) else error from None


def mlflow(words: list[str]) -> None:
    """Commands and options by MLflow's own; entry point and parameters by the project file and `sslbt`."""
    command: click.Command = mlflow_commands
    rest = list(words)
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), rest.pop(0))
        assert found, f"mlflow has no such command: {words}"
        command = found
    try:
        given = command.make_context(command.name, rest).params
    except click.MissingParameter as error:
        raise Lacking(error) from None
    if command.name == "run" and given["entry_point"] != NAME:
        assert given["uri"] == "."
        entry_point = PROJECT["entry_points"][given["entry_point"]]
        pairs = dict(pair.split("=", 1) for pair in given["param_list"])
        assert not (strange := pairs.keys() - entry_point["parameters"]), f"MLproject has no {strange}"
        shown = [(f"--{key}", value) for key, value in pairs.items() if value.strip(".")]
        sslbt([given["entry_point"], *(word for pair in shown for word in pair)])


def python(words: list[str]) -> None:
    """Code compiles, modules are there, a benchmark's own parser takes its words."""
    if not words:
        return
    if words[0] == "-c":
        compile(words[1], "-c", "exec")
    elif words[0] == "-m":
        assert importlib.util.find_spec(words[1]), f"no module {words[1]}"
    else:
        script(ROOT / words[0], words[1:])


def script(path: Path, words: list[str]) -> None:
    """Start a script as far as its parser, which has to take the words."""

    class Taken(Exception):
        pass

    def take(parser: argparse.ArgumentParser, given: list[str] | None = None) -> None:
        left = parser.parse_known_args(given)[1]
        assert not left, f"{path.name} knows no {left}"
        raise Taken

    def refuse(parser: argparse.ArgumentParser, message: str) -> None:
        raise ValueError(f"{path.name}: {message}")

    patched = {"parse_args": take, "error": refuse}
    before, argv = {name: getattr(argparse.ArgumentParser, name) for name in patched}, sys.argv
    try:
        for name, function in patched.items():
            setattr(argparse.ArgumentParser, name, function)
        sys.argv = [str(path), *words]
        sys.path.insert(0, str(path.parent))
        with contextlib.suppress(Taken):
            runpy.run_path(str(path), run_name="__main__")
            raise AssertionError(f"{path.name} reads no words")
    finally:
        sys.argv = argv
        sys.path.remove(str(path.parent))
        for name, function in before.items():
            setattr(argparse.ArgumentParser, name, function)


def torchrun(words: list[str]) -> None:
    """Its own options, then those of `sslbt`."""
    try:
        given = torch.distributed.run.get_args_parser().parse_args(words)
    except SystemExit:
        raise ValueError("torchrun refuses") from None
    assert given.module
    assert given.training_script == "sslbt"
    sslbt(given.training_script_args)


def make(words: list[str]) -> None:
    """There is such a target."""
    without = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    asked = subprocess.run(["make", "-n", *words], cwd=ROOT, env=without, capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr


def pip(words: list[str]) -> None:
    """Files of pins exist, and a pin shown is the one that is tested."""
    assert words[0] == "install"
    pins = "\n".join(path.read_text() for path in ROOT.glob("requirements*.txt"))
    for option, word in pairwise(words):
        if option == "-r":
            assert (ROOT / word).is_file(), f"no file {word}"
        elif "==" in word:
            assert re.search(rf"^{re.escape(word)}(\s|$)", pins, re.M), f"{word} is not pinned so"


def curl(words: list[str]) -> None:
    """The service has such an address."""
    (address,) = (urlsplit(word) for word in words if word.startswith("http"))
    assert has_route("POST", address.path), f"no address {address.path}"


def has_route(method: str, path: str) -> bool:
    """Whether the service answers there."""
    scope = {"type": "http", "method": method, "path": path, "headers": []}
    return any(route.matches(scope)[0] == Match.FULL for route in service().routes)


@cache
def service() -> FastAPI:
    """Of the released model."""
    return create_app(Current(Model(Classifier.load(onnx_file("released")), "brain-tumor-classifier", "1")))


PARSERS: dict[str, Callable[[list[str]], None]] = {
    "sslbt": sslbt,
    "mlflow": mlflow,
    "python": python,
    "torchrun": torchrun,
    "make": make,
    "pip": pip,
    "curl": curl,
}
