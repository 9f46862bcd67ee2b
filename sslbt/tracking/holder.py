"""Which process a run belongs to: it holds a lock as long as it lives, so that others can tell whether it does.

A process is called HOST.NUMBER. Its lock, `running/HOST.NUMBER.lock` beside the cache, holds the address of its store
and the run that `mlflow run` opened for it; a folder of the same name what is only needed for a moment. Nothing here
needs MLflow: a claim comes before everything that takes time.
"""

import atexit
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from sslbt.data.source import cache_folder

TAG = "process"  # of a run: who is at it
HOST = platform.node()


def folder() -> Path:
    """Where all processes have their locks."""
    return cache_folder() / "running"


def claim() -> str:
    """The name of this process, whose lock it holds from now on; "" where nothing can be written beside the cache."""
    return _claim(folder())


@cache
def _claim(place: Path) -> str:
    name = f"{HOST}.{uuid4().hex}"
    lock = FileLock(place / f"{name}.lock")
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError:  # a cache that others prepared may be read-only
        return ""
    note(os.environ.get("MLFLOW_TRACKING_URI", ""), name)

    def leave() -> None:
        shutil.rmtree(place / name, ignore_errors=True)
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)

    atexit.register(leave)
    return name


def note(store: str, name: str) -> None:
    """Keep the address of the store, and the run that `mlflow run` opened if it did, for whoever ends this one's runs.

    Raises:
        OSError: the disk is full.
    """
    if name:
        (folder() / f"{name}.lock").write_text(f"{store}\n{os.environ.get('MLFLOW_RUN_ID', '')}")


def temporary() -> Path:
    """A folder that is gone when this process is: where it was killed, with the next start."""
    if not claim():
        return _elsewhere()
    place = folder() / claim()
    place.mkdir(exist_ok=True)
    return place


@cache
def _elsewhere() -> Path:
    place = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder in there that is gone afterwards; libraries use it for theirs meanwhile."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(dir=temporary()) as own:
        tempfile.tempdir = own
        try:
            yield Path(own)
        finally:
            tempfile.tempdir = before


@contextmanager
def lock_of_dead(name: str) -> Iterator[Path | None]:
    """The lock of a process of this machine that is no more, held meanwhile; None where it lives, or may."""
    path = folder() / f"{name}.lock"
    lock = FileLock(path)
    try:
        if name == claim() or name.rpartition(".")[0] != HOST:
            raise Timeout(str(path))  # locks of other machines need not reach this one
        lock.acquire(timeout=0)
    except OSError:  # a Timeout is one; where nothing can be written nobody can tell
        yield None
        return
    try:
        yield path
    finally:
        lock.release()


def alive(name: str) -> bool:
    """Whether a process is still there, as far as can be told."""
    with lock_of_dead(name) as lock:
        return lock is None
