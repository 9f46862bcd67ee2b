"""One training, one folder, one run, however often it is interrupted."""

import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from sslbt.errors import UserError
from sslbt.tracking.resume import interrupted_run, run_to_continue, unfinished


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSLBT_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    return tmp_path


def test_the_folder_is_kept_after_a_failure_and_removed_after_success(home: Path) -> None:
    def work(error: type[BaseException]) -> None:
        with unfinished("k1") as folder:
            folder.mkdir(exist_ok=True)
            (folder / error.__name__).touch()
            raise error

    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error):
            work(error)
    with unfinished("k1") as folder:
        assert folder == home / "unfinished" / "k1"
        assert {path.name for path in folder.iterdir()} == {"RuntimeError", "KeyboardInterrupt"}
    assert not folder.exists()
    with unfinished("k1"):  # that wrote nothing
        pass


HOLDER = """
import sys, time
from sslbt.tracking.resume import unfinished
with unfinished("k1") as folder:
    folder.mkdir(exist_ok=True)
    print("holds it", flush=True)
    time.sleep(600)
"""


@pytest.mark.usefixtures("home")
def test_a_second_process_at_the_same_work_is_refused_until_the_first_is_gone() -> None:
    first = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "holds it\n"
        with pytest.raises(UserError) as caught, unfinished("k1"):
            pytest.fail("two at the same work")
        assert str(caught.value).endswith(
            "unfinished/k1: another process is doing just this; wait until it is done, or stop it"
        )
        with unfinished("k2"):  # other work is free
            pass
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
        first.stdout.close()
    with unfinished("k1") as folder:
        assert folder.exists()  # what the killed one left
    assert not folder.exists()


def run(store: MlflowClient, experiment: str, key: str, start: int, status: str = "RUNNING") -> str:
    found = store.create_run(experiment, start_time=start, tags={"key": key}).info.run_id
    if status != "RUNNING":
        store.set_terminated(found, status)
    return found


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("status", ["RUNNING", "KILLED", "FAILED"])
def test_the_newest_run_of_the_key_goes_on_if_it_did_not_finish(
    store: MlflowClient, experiment: str, status: str, capsys: pytest.CaptureFixture
) -> None:
    run(store, experiment, "k1", 1, "KILLED")
    newest = run(store, experiment, "k1", 3, status)
    run(store, experiment, "k1", 2, "FINISHED")
    run(store, experiment, "k2", 4, "KILLED")
    assert interrupted_run("k1").info.run_id == newest
    assert run_to_continue("k1") == newest
    assert capsys.readouterr().err == f"continuing run {newest}\n"
    assert store.get_run(newest).info.status == status


@pytest.mark.usefixtures("home")
def test_a_finished_run_is_not_continued_nor_what_it_took_over(store: MlflowClient, experiment: str) -> None:
    assert run_to_continue("k1") is None
    run(store, experiment, "k1", 1, "KILLED")
    run(store, experiment, "k1", 2, "FINISHED")
    assert interrupted_run("k1") is None
    assert run_to_continue("k1") is None


@pytest.mark.usefixtures("home")
def test_runs_of_another_experiment_are_not_looked_at(store: MlflowClient, experiment: str) -> None:
    run(store, experiment, "k1", 1, "KILLED")
    mlflow.set_experiment(f"{experiment} another")
    assert run_to_continue("k1") is None


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(("status", "then"), [("RUNNING", "KILLED"), ("KILLED", "KILLED"), ("FAILED", "FAILED")])
def test_a_run_that_mlflow_run_opened_takes_over_and_both_say_so(
    store: MlflowClient, experiment: str, monkeypatch: pytest.MonkeyPatch, status: str, then: str
) -> None:
    earlier = run(store, experiment, "k1", 1, status)
    opened = store.create_run(experiment, start_time=2).info.run_id  # without a key as yet
    monkeypatch.setenv("MLFLOW_RUN_ID", opened)
    assert run_to_continue("k1") is None
    before, after = store.get_run(earlier), store.get_run(opened)
    assert (before.info.status, before.data.tags["continued_by"]) == (then, opened)
    assert (after.info.status, after.data.tags["continues"]) == ("RUNNING", earlier)


@pytest.mark.usefixtures("home")
def test_a_run_does_not_take_over_from_itself(
    store: MlflowClient, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = run(store, experiment, "k1", 1)
    monkeypatch.setenv("MLFLOW_RUN_ID", own)
    assert run_to_continue("k1") is None
    found = store.get_run(own)
    assert found.info.status == "RUNNING"
    assert not {"continued_by", "continues"} & found.data.tags.keys()
