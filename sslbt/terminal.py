"""What the person at the terminal sees."""

import contextlib
import re
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
QUIET = 60.0  # seconds that may pass without a line where there is no terminal


def say(line: str) -> None:
    """A line for the person, above a bar if there is one; standard output stays free for results."""
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more: no reason to lose a training
        tqdm.write(plain(line), file=sys.stderr)
        sys.stderr.flush()


def plain(text: str) -> str:
    """The same without control characters: a file's name may hold some that steer a terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text)


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


class Countdown:
    """How far long work is: a bar on a terminal; elsewhere a plain line where nothing was said for a minute."""

    def __init__(self, total: int, done: int, what: str) -> None:
        self.total, self.first, self.done, self.what = total, done, done, what
        self.began = self.said = time.monotonic()
        self.bar = tqdm(total=total, initial=done, desc=what, unit=" steps") if sys.stderr.isatty() else None

    def step(self, done: int, where: str) -> None:
        """So many steps are done; `where` says more of it."""
        if self.bar is not None:
            self.bar.set_postfix_str(where, refresh=False)
            self.bar.update(done - self.done)
        self.done = done
        if self.bar is None and time.monotonic() - self.said > QUIET:
            self.say(f"{self.what}: {where}")

    def say(self, line: str) -> None:
        """A line with the time that is left."""
        say(f"{line}  {self.left}")
        self.said = time.monotonic()

    @property
    def left(self) -> str:
        """Time that is left, in words, by the pace of this process."""
        steps = self.done - self.first
        if not steps:
            return ""
        left = round((time.monotonic() - self.began) / steps * (self.total - self.done))
        hours, minutes, seconds = left // 3600, left // 60 % 60, left % 60
        if hours:
            return f"{hours} h {minutes} min left"
        return f"{minutes} min {seconds} s left" if minutes else f"{seconds} s left"

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()
