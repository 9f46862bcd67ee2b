"""What the person at the terminal sees."""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def say(line: str) -> None:
    """A line for the person; standard output stays free for results."""
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more: no reason to lose a training
        print(line, file=sys.stderr, flush=True)


def progress(items: Iterable[T], what: str, unit: str, total: int | None = None) -> Iterator[T]:
    """A bar on a terminal, with the time left where the total is known; a plain line now and then elsewhere."""
    if sys.stderr.isatty():
        yield from tqdm(items, desc=what, unit=f" {unit}", total=total)
        return
    count, of = 0, f" of {total}" if total else ""
    for count, item in enumerate(items, 1):
        yield item
        if count % 1000 == 0:
            say(f"{what}: {count}{of} {unit}")
    say(f"{what}: {count} {unit}, done")
