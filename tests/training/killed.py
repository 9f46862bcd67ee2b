"""Starts one training again and again and kills each process with SIGKILL, until it is done: `killed.py FOLDER`.

The first processes kill themselves where a checkpoint is half written, written and not yet in place, or in place and
nothing after it; the others, which write slowly, are killed by their parent at random times.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from toy import Toy

from sslbt.training import loop

STEPS, EPOCHS, SCORES = 60, 4, (0.5, 0.5, 0.1, 0.1)
MOMENTS = [(place, save) for save in (1, 2, 3, 4) for place in ("write", "replace", "replaced")]
RANDOM_KILLS = 14


def train(folder: Path, loss_takes: float = 0.0) -> None:
    toy = Toy(lambda place, _: place == "loss" and time.sleep(loss_takes), SCORES, STEPS)
    toy.train(folder, epochs=EPOCHS, shape="constant")  # every epoch counts then, so that the best isn't the last


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_while_saving(folder: Path, place: str, save: int) -> None:
    """Train with a SIGKILL in the middle of the so manieth checkpoint."""
    write, replace = Path.write_bytes, os.replace
    saves = 0

    def strike_write(path: Path, content: bytes) -> None:
        nonlocal saves
        saves += 1
        write(path, content[: len(content) // 2] if (place, save) == ("write", saves) else content)
        if (place, save) == ("write", saves):
            die()

    def strike_replace(partial: Path, path: Path) -> None:
        if (place, save) == ("replace", saves):
            die()
        replace(partial, path)
        if (place, save) == ("replaced", saves):
            die()

    Path.write_bytes, os.replace = strike_write, strike_replace  # type: ignore[assignment]
    train(folder)


def train_slowly(folder: Path) -> None:
    """Train with checkpoints that take long to write, so that many kills fall into them."""

    def write(path: Path, content: bytes) -> None:
        with open(path, "wb") as out:
            for start in range(0, len(content), 1 + len(content) // 8):
                out.write(content[start : start + 1 + len(content) // 8])
                out.flush()
                time.sleep(0.002)

    Path.write_bytes = write  # type: ignore[assignment]
    loop.SAVE_EVERY = 0.02
    train(folder, loss_takes=0.004)


def child(work: object, *args: object) -> int:
    """A process of its own, which begins where this one is: torch is imported once."""
    if pid := os.fork():
        return pid
    work(*args)  # type: ignore[operator]
    os._exit(0)


def ended(pid: int) -> str:
    status = os.waitpid(pid, 0)[1]
    return "killed" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL else f"status {status}"


if __name__ == "__main__":
    folder, chance = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
    train(folder / "whole")  # uninterrupted; the first training of a process takes a second, which others then save
    for place, save in MOMENTS:
        own = folder / f"{place}-{save}"
        print("at a moment:", ended(child(die_while_saving, own, place, save)), sorted(os.listdir(own)))
        print("again:", ended(child(train, own)))
    for _ in range(RANDOM_KILLS):
        pid = child(train_slowly, folder / "random")
        time.sleep(chance.uniform(0.02, 0.12))
        os.kill(pid, signal.SIGKILL)
        print("at random:", ended(pid), sorted(os.listdir(folder / "random")))
    print("again:", ended(child(train_slowly, folder / "random")))
