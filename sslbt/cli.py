"""`sslbt NAME --flags`: the same names, flags and defaults as in MLproject."""

import argparse
import importlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from tempfile import gettempdir
from typing import NoReturn

from pydantic_core import PydanticUndefined

from sslbt.config import STAGES, Training
from sslbt.data.source import cache_folder
from sslbt.errors import UserError
from sslbt.parameters import Config, unknown
from sslbt.tracking import holder

UNTRACKED = ("layout", "lineage", "serve")  # a run of their own only where `mlflow run` opened one
OPENS_ITS_OWN = "score"  # when its table is there
PATIENCE = 30.0  # seconds
WORDS = {"compare": "runs", "lineage": "model"}  # what may be given without its flag
_interrupted = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one entry point; 0, 2 for a mistake of the user's, 130 where it was interrupted."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # a job in the background is deaf to Ctrl-C
            signal.signal(number, _interrupt)
    # Steps started from here find this very Python first.
    os.environ["PATH"] = str(Path(sys.executable).parent) + os.pathsep + os.environ.get("PATH", "")
    try:
        if "MLFLOW_RUN_ID" in os.environ and not _rank():
            holder.claim()  # the run that `mlflow run` opened, before anything takes time
        name, config = parse(sys.argv[1:] if arguments is None else arguments)
        run_step(name, config)
    except UserError as error:
        if _first_in_a_while():
            from sslbt.terminal import plain

            print(f"sslbt: {plain(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if _rank() == 0:
            print("sslbt: interrupted; the same command continues where this one stopped", file=sys.stderr)
        return 130
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        # Of two files it is the one that was to be written.
        where = error.filename2 or error.filename or f"the disk of {cache_folder()}, {Path.cwd()} or {gettempdir()}"
        print(
            f"sslbt: {where}: {error.strerror}; free space or change its permissions, then run it again",
            file=sys.stderr,
        )
        return 2
    except Exception as error:
        if "mlflow" not in sys.modules:
            raise
        from sslbt.tracking.store import trouble

        if not (sentence := trouble(error)):
            raise
        print(f"sslbt: {sentence}", file=sys.stderr)
        return 2
    return 0


def parse(arguments: Sequence[str]) -> tuple[str, Config]:
    """The entry point and its checked parameters.

    Raises:
        UserError: an unknown entry point or parameter, or a value that doesn't fit.
    """
    parser = Parser(prog="sslbt", description=sys.modules["sslbt"].__doc__)
    entry_points = parser.add_subparsers(dest="entry_point", metavar="NAME", required=True, parser_class=Parser)
    for name, config in STAGES.items():
        own = entry_points.add_parser(name, help=config.__doc__, description=config.__doc__, allow_abbrev=False)
        for field, about in config.model_fields.items():
            default = "" if about.default is PydanticUndefined else f" [{about.default}]"
            # An empty value means "not given": `mlflow run` can't leave a flag out.
            flags = dict.fromkeys((f"--{field.replace('_', '-')}", f"--{field}"))
            own.add_argument(*flags, metavar="X", help=f"{about.description}{default}".replace("%", "%%"))
        if name in WORDS:
            own.add_argument("words", nargs="*", metavar=WORDS[name].upper(), help=f"the same as --{WORDS[name]}")
    chosen, rest = parser.parse_known_args(arguments)
    config = STAGES[chosen.entry_point]
    if rest:
        raise UserError(unknown(rest[0].lstrip("-").split("=")[0].replace("-", "_"), list(config.model_fields)))
    given = {field: value for field, value in vars(chosen).items() if value and field != "entry_point"}
    if words := given.pop("words", None):
        field = WORDS[chosen.entry_point]
        given[field] = " ".join([*words, given.get(field, "")]).strip()
    return chosen.entry_point, config.build(**given)


def run_step(name: str, config: Config) -> None:
    """Run an entry point's function, inside an MLflow run where it is tracked.

    Raises:
        UserError: torchrun started several processes of something that one process does.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1  # so says torchrun
    if several and not issubclass(type(config), Training):
        raise UserError(f"{name}: one process does it; start it without torchrun, which is for trainings")
    step = getattr(importlib.import_module(f"sslbt.steps.{name.replace('-', '_')}"), name.replace("-", "_"))
    if name == OPENS_ITS_OWN or (name in UNTRACKED and "MLFLOW_RUN_ID" not in os.environ):
        step(config)
        return
    from sslbt.parallel import together
    from sslbt.tracking.run import start

    with together() if several else nullcontext(), start(config) as run:
        try:
            step(config) if name in UNTRACKED else step(config, run)
        except Exception as error:
            if _interrupted:  # in the middle of drawing, say, where libraries make another error of it
                raise KeyboardInterrupt from error
            raise


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; `{self.prog} --help` lists what there is")


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _first_in_a_while() -> bool:
    """Of several processes that find the same mistake the first says so; the others wait until it ended them all."""
    try:
        time.sleep(PATIENCE if _rank() else 0)
    except KeyboardInterrupt:
        return False
    return True


def _interrupt(number: int, frame: object) -> NoReturn:
    global _interrupted
    _interrupted = True
    raise KeyboardInterrupt
