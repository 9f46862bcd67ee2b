"""Runs of processes that were killed end; those of processes that may be alive stay as they are."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from sslbt.tracking import holder
from sslbt.tracking.orphans import end_orphans
from sslbt.tracking.resume import interrupted_run, place_of

PROCESS = """
import sys, time
from sslbt.tracking import holder
name = holder.claim()
holder.note(sys.argv[1], name)
(holder.temporary() / "large").touch()
print(name, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSLBT_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    return tmp_path


@pytest.fixture
def begin(store: MlflowClient) -> Iterator[Callable[..., tuple[str, Callable[[], None]]]]:
    """Starts a process that claims; its name, and what kills it."""
    begun: list[subprocess.Popen[str]] = []

    def begin(opened: str = "", address: str = store.tracking_uri) -> tuple[str, Callable[[], None]]:
        environment = os.environ | ({"MLFLOW_RUN_ID": opened} if opened else {})
        words = [sys.executable, "-c", PROCESS, address]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
        begun.append(process)
        assert process.stdout
        name = process.stdout.readline().strip()

        def kill() -> None:
            process.send_signal(signal.SIGKILL)
            process.wait()

        return name, kill

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def run_of(store: MlflowClient, experiment: str, process: str, **tags: str) -> str:
    return store.create_run(experiment, tags={holder.TAG: process} | tags).info.run_id


def test_a_run_ends_when_its_process_was_killed_and_not_before(
    store: MlflowClient, experiment: str, begin: Callable, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, kill = begin()
    run = run_of(store, experiment, name)
    end_orphans()
    assert holder.alive(name)
    assert store.get_run(run).info.status == "RUNNING"
    kill()
    assert not holder.alive(name)
    end_orphans()
    assert store.get_run(run).info.status == "KILLED"
    assert store.get_run(run).info.end_time is not None
    assert f"run {run}" in capsys.readouterr().err
    assert [path.stem for path in (home / "running").iterdir()] == [holder.claim()]  # nor does its folder stay


def test_a_run_that_mlflow_run_opened_for_a_process_that_had_not_begun(
    store: MlflowClient, experiment: str, begin: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = store.create_run(experiment).info.run_id
    name, kill = begin(opened)
    end_orphans()
    assert store.get_run(opened).info.status == "RUNNING"
    kill()
    end_orphans()
    assert store.get_run(opened).info.status == "KILLED"
    assert capsys.readouterr().err.count(opened) == 1
    name, kill = begin(opened)
    store.set_terminated(opened, "RUNNING")
    store.set_tag(opened, holder.TAG, name)  # it has begun
    kill()
    end_orphans()
    assert capsys.readouterr().err.count(opened) == 1


def test_children_end_with_their_parent_unless_a_process_has_them(
    store: MlflowClient, experiment: str, begin: Callable
) -> None:
    (parent_process, kill), (child_process, _) = begin(), begin()
    parent = run_of(store, experiment, parent_process)
    tags = {"mlflow.parentRunId": parent}
    nobodys = store.create_run(experiment, tags=tags).info.run_id
    somebodys = run_of(store, experiment, child_process, **tags)
    elsewhere = run_of(store, experiment, "elsewhere.1", **tags)
    kill()
    end_orphans()
    found = [store.get_run(run).info.status for run in (parent, nobodys, somebodys, elsewhere)]
    assert found == ["KILLED", "KILLED", "RUNNING", "RUNNING"]


def test_another_machines_run_and_another_stores_stay(
    store: MlflowClient, experiment: str, begin: Callable, home: Path
) -> None:
    (home / "running").mkdir()
    (home / "running" / "elsewhere.1.lock").write_text(store.tracking_uri)
    far = run_of(store, experiment, "elsewhere.1")
    name, kill = begin(address="sqlite:////another.db")
    other = run_of(store, experiment, name)
    kill()
    end_orphans()
    assert [store.get_run(run).info.status for run in (far, other)] == ["RUNNING"] * 2
    assert holder.alive("elsewhere.1")
    locks = {path.stem for path in (home / "running").iterdir()}
    assert locks == {"elsewhere.1", name, holder.claim()}  # what the killed one had beside its lock is gone


def test_a_run_that_took_up_another_ones_is_that_ones_no_more(
    store: MlflowClient, experiment: str, begin: Callable
) -> None:
    (first, kill), (second, _) = begin(), begin()
    run = run_of(store, experiment, first)
    store.set_tag(run, holder.TAG, second)
    kill()
    end_orphans()
    assert store.get_run(run).info.status == "RUNNING"


def test_what_a_finished_training_left_goes_unless_somebody_is_at_it(
    store: MlflowClient, experiment: str, begin: Callable
) -> None:
    name, kill = begin()
    run = run_of(store, experiment, name, key="k1")
    store.set_terminated(run, "FINISHED")
    place_of("k1").mkdir(parents=True)
    kill()
    end_orphans()
    assert not place_of("k1").exists()
    assert store.get_run(run).info.status == "FINISHED"


def test_a_training_under_way_is_not_taken_up(store: MlflowClient, experiment: str, begin: Callable) -> None:
    name, kill = begin()
    run = run_of(store, experiment, name, key="k1")
    assert interrupted_run("k1") is None
    kill()
    found = interrupted_run("k1")
    assert found is not None
    assert found.info.run_id == run


def test_where_nothing_can_be_written_nobody_claims(home: Path, experiment: str) -> None:
    (home / "running").touch()  # as good as no permission, to root too
    assert holder.claim() == ""
    assert holder.alive(f"{holder.HOST}.1")  # nobody can tell
    end_orphans()
    with holder.scratch() as folder:
        (folder / "file").touch()
    assert not folder.exists()
