"""Runs whose process was killed end as KILLED with the next start, and what it left on the disk goes."""

import shutil
from pathlib import Path

import mlflow
from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from sslbt.terminal import say
from sslbt.tracking import holder
from sslbt.tracking.resume import place_of
from sslbt.tracking.store import absent


def end_orphans() -> None:
    """End what processes of this machine left RUNNING in the current store when they were killed.

    Runs of processes that live, of other machines and of other stores stay as they are.
    """
    store = mlflow.get_tracking_uri()
    holder.note(store, holder.claim())
    for path in sorted(holder.folder().glob("*.lock")):
        with holder.lock_of_dead(path.stem) as lock:
            if lock is None:
                continue
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            of_store, _, opened = lock.read_text().partition("\n")
            if of_store == store:
                for run in _runs_of(lock.stem, opened):
                    _end(run)
            if of_store in (store, ""):  # it had not begun
                lock.unlink(missing_ok=True)


def _runs_of(process: str, opened: str) -> list[MlflowRun]:
    """Runs of a process, and the one that `mlflow run` opened for it if it did not come to say that it has it."""
    runs = _search(f"tags.{holder.TAG} = '{process}'")
    if opened and opened not in {run.info.run_id for run in runs}:
        try:
            runs.append(MlflowClient().get_run(opened))
        except MlflowException as error:
            if not absent(error):
                raise
    return [run for run in runs if run.data.tags.get(holder.TAG, process) == process]


def _end(run: MlflowRun) -> None:
    if run.info.status == "FINISHED":
        _clear(place_of(run.data.tags.get("key", "none")))
    if run.info.status != "RUNNING":
        return
    MlflowClient().set_terminated(run.info.run_id, "KILLED")
    say(f"run {run.info.run_id} ({run.info.run_name}) was left RUNNING by a process that was killed: it is KILLED now")
    for child in _search(f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run.info.run_id}'"):
        if holder.TAG not in child.data.tags:  # opened for a process that had not begun
            _end(child)


def _clear(unfinished: Path) -> None:
    """What a training left that was killed after its run had ended."""
    try:
        with FileLock(unfinished.with_suffix(".lock"), timeout=0):
            shutil.rmtree(unfinished, ignore_errors=True)
    except Timeout:
        pass  # somebody is at the same training


def _search(condition: str) -> list[MlflowRun]:
    return list(mlflow.search_runs(search_all_experiments=True, filter_string=condition, output_format="list"))
