"""Processes that wait for each other, and say so."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sslbt.terminal import QUIET, say

SILENT = 5.0  # seconds that a person need not hear of


@contextmanager
def alone(lock: Path, work: str) -> Iterator[None]:
    """One process at a time; the others wait until it is done, however long that takes, and say what they wait for.

    The system takes the lock from a process that ends, even by `kill -9`: the next one has it within a twentieth of a
    second. Only one that is stopped, or waits itself, holds up the others, and they name its lock every minute.

    Args:
        lock: its file; folders are made.
        work: what the other one does, as in "waiting for another process to finish the download".
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    own, patience = FileLock(lock), SILENT
    while True:
        try:
            own.acquire(timeout=patience)
            break
        except Timeout:
            say(f"waiting for another process {work}; if it hangs, end it (`lsof {lock}` names it)")
            patience = QUIET
    try:
        yield
    finally:
        own.release()
