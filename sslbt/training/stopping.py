"""Ctrl-C and SIGTERM wait until a training is at rest."""

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any

NOTICE = b"\nstopping after this step; Ctrl-C again stops at once, from the last checkpoint\n"


class Stop:
    """Notes that somebody asked to stop; a second Ctrl-C interrupts at once.

    A SIGTERM after a Ctrl-C is no second request: `mlflow run` sends it to its children when it is interrupted itself.
    """

    def __init__(self) -> None:
        self.asked = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():  # signals reach no other
            heard = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
            self.before = {number: signal.signal(number, self._ask) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.asked:
            with contextlib.suppress(OSError):
                os.write(
                    2, NOTICE
                )  # not `say`: it may be what this signal interrupts, and would refuse to be reentered
        self.asked = True
