"""One run for a training, however often it is interrupted."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun

from sslbt.data.source import cache_folder
from sslbt.errors import UserError
from sslbt.terminal import say
from sslbt.tracking import holder
from sslbt.waiting import alone

PRUNED = "pruned"  # a tag of what was given up


class GivenUp(Exception):
    """Work that a sweep ends early: nobody will continue it, nothing of it is kept but its run."""


def place_of(key: str) -> Path:
    """Where work of this key leaves what it needs to continue."""
    return cache_folder() / "unfinished" / key


@contextmanager
def unfinished(key: str) -> Iterator[Path]:
    """The same folder for one process at a time; removed once the work is done or given up.

    Raises:
        UserError: another process is at the same work.
    """
    folder = place_of(key)
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"{folder}: another process is doing just this; wait until it is done, or stop it") from error
    try:
        yield folder
        shutil.rmtree(folder, ignore_errors=True)
    except GivenUp:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        lock.release()


def wait_for_others(key: str) -> None:
    """Until no process is at the work of this key."""
    with alone(place_of(key).with_suffix(".lock"), "to finish the same training"):
        pass


def interrupted_run(key: str) -> MlflowRun | None:
    """The newest run of this key in the current experiment, if it is not finished, given up or under way."""
    found = mlflow.search_runs(
        filter_string=f"tags.key = '{key}'",
        order_by=["attributes.start_time DESC"],
        output_format="list",
        max_results=1,
    )
    if not found or found[0].info.status == "FINISHED" or PRUNED in found[0].data.tags:
        return None
    process = found[0].data.tags.get(holder.TAG, "")
    under_way = found[0].info.status == "RUNNING" and process and holder.alive(process)
    return None if under_way else found[0]


def run_to_continue(key: str) -> str | None:
    """The id of the run that goes on, None for a new one. Call it inside `unfinished`: nobody else is at it.

    `mlflow run` opens a run of its own each time: that one takes over, and the interrupted one says so.
    """
    earlier, opened = interrupted_run(key), os.environ.get("MLFLOW_RUN_ID")
    if earlier is None or earlier.info.run_id == opened:
        return None
    if opened is None:
        say(f"continuing run {earlier.info.run_id}")
        return earlier.info.run_id
    client = MlflowClient()
    client.set_tag(earlier.info.run_id, "continued_by", opened)
    client.set_tag(opened, "continues", earlier.info.run_id)
    if earlier.info.status == "RUNNING":
        client.set_terminated(earlier.info.run_id, "KILLED")
    say(f"continuing what run {earlier.info.run_id} began")
    return None
