"""Several commands at once on one store and one cache: each has what it would have alone, and nothing is done twice."""

import json
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pandas as pd
import pytest
from mlflow.entities import Run
from place import Place
from size import FULL, times

NAME = "brain-tumor-classifier"
TOGETHER = times(2, 4)  # each is two processes
TOLD = "waiting for another process"
OPENERS = """
import sys, time
from mlflow import MlflowClient
from mlflow.store.tracking import sqlalchemy_store
print("ready", flush=True)
sys.stdin.readline()
client = MlflowClient(sys.argv[1])
client.search_registered_models()
client.create_run("0")
"""


LEARNT = ("prepare", "pretrain-encoder", "pretrain-contrastive")  # whose keys hold no run id


def told(run: Run) -> dict[str, object]:
    """What a run comes to: less times, and how busy the machine was."""
    measured = {name for name in run.data.metrics if name.startswith("system/") or name.endswith("/seconds")}
    own = {name: value for name, value in run.data.metrics.items() if name not in measured}
    return {tag: run.data.tags.get(tag) for tag in ("stage", "key", "data_digest", "split_hash")} | own


def check_registry(place: Place) -> None:
    """Versions 1, 2, 3 and so on, one for each `register`; aliases as the decisions, one after another, leave them."""
    versions = place.client.search_model_versions(f"name = '{NAME}'")
    registers = place.runs("tags.stage = 'register'")
    assert sorted(int(own.version) for own in versions) == list(range(1, len(registers) + 1))
    decisions = [
        json.loads(Path(place.client.download_artifacts(run.info.run_id, "decision.json")).read_text())
        for run in registers
    ]
    assert sorted(int(own["version"]) for own in decisions) == list(range(1, len(registers) + 1))
    moves = {own["champion"]: own["version"] for own in decisions if own["promoted"]}
    assert len(moves) == sum(own["promoted"] for own in decisions)  # none was made against the same champion
    champions = [""]
    while champions[-1] in moves:
        champions.append(moves[champions[-1]])
    assert len(champions) == len(moves) + 1
    assert {own["champion"] for own in decisions} <= set(champions)
    aliases = {name: str(own) for name, own in place.client.get_registered_model(NAME).aliases.items()}
    expected = {"champion": champions[-1], "challenger": str(len(registers)), "previous": champions[-2]}
    assert aliases == {name: own for name, own in expected.items() if own}


def opener(store: Path) -> subprocess.Popen[str]:
    """A process that is ready to open a store and write into it."""
    words = [sys.executable, "-c", OPENERS, f"sqlite:///{store}"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen(words, text=True, **pipes)
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    process.stdin.write("\n")
    process.stdin.flush()


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Nobody else can write into this file."""
    with closing(sqlite3.connect(store, isolation_level=None)) as file:
        file.execute("begin immediate")
        yield
        file.execute("rollback")


def test_a_new_store_is_opened_by_several_at_once(tmp_path: Path) -> None:
    for attempt in range(times(1, 10)):
        store = tmp_path / str(attempt) / "mlflow.db"
        everybody = [opener(store) for _ in range(times(2, 4))]
        for process in everybody:  # all at the same moment
            go(process)
        said = [process.communicate(timeout=300)[1] for process in everybody]
        assert [process.returncode for process in everybody] == [0] * len(everybody), said
        with closing(sqlite3.connect(store)) as file:
            assert file.execute("select count(*) from runs").fetchone() == (len(everybody),)
            assert file.execute("select name from experiments").fetchall() == [("Default",)]
        assert [path.name for path in store.parent.iterdir() if path.name != "mlruns"] == ["mlflow.db"]


def test_a_store_that_another_process_keeps_locked_is_waited_for_and_then_named(tmp_path: Path) -> None:
    """As whoever writes does, for a moment; one that is stopped in the middle does it for ever."""
    place = Place(tmp_path)
    place.client.create_registered_model(NAME)
    with opener(place.folder / "mlflow.db") as waits, locked(place.folder / "mlflow.db"):
        go(waits)
        time.sleep(times(3, 15))
        assert waits.poll() is None
    assert waits.returncode == 0
    if not FULL:
        return  # it takes 20 seconds
    with locked(place.folder / "mlflow.db"):
        began = time.monotonic()
        code, said = place.run("sslbt", "rollback")
    print(f"given up after {time.monotonic() - began:.0f} s, its start included")
    assert code == 2
    assert "another process keeps it locked; if that one hangs, end it" in said
    assert "Traceback" not in said
    assert len(place.runs()) == 1  # of the one that waited
    code, said = place.run("sslbt", "rollback")
    assert "no champion in sqlite" in said


def test_several_prepare_the_same_on_a_new_store_and_an_empty_cache(tmp_path: Path) -> None:
    place = Place(tmp_path)
    everybody = [place.start(*Place.MLFLOW_RUN, "-e", "prepare", "-P", "data=sample:24") for _ in range(TOGETHER)]
    said = [process.communicate()[0] for process in everybody]
    assert [process.returncode for process in everybody] == [0] * TOGETHER, "\n".join(said)
    assert not [text for text in said if "Traceback" in text or "locked" in text]
    assert sum("files, done" in text for text in said) == 1  # one reads them, the others wait
    runs = place.runs()
    assert [run.info.status for run in runs] == ["FINISHED"] * TOGETHER
    assert len({run.data.tags["data_digest"] for run in runs}) == 1
    assert len(list(place.folder.glob("home/cache-*/"))) == 1
    assert list(place.folder.rglob(".partial*")) == []


COMMON = ["-P", "preset=tiny", "-P", "num_pairs=32"]
# Two that are the same, one with other labels, one with another seed; four that are the same; other data besides.
SAME = ["data=sample:24"]
TRIALS = [
    [SAME, SAME, [*SAME, "labels=24"], [*SAME, "seed=1"]],
    [SAME] * 4,
    [SAME, SAME, ["data=sample:30"], ["data=sample:30", "split=slices"]],
]


@pytest.mark.skipif(not FULL, reason="make torture: it takes minutes")
@pytest.mark.parametrize("trial", TRIALS, ids=["other labels and seeds", "the same", "other data"])
def test_four_at_once_on_a_new_store_and_an_empty_cache(tmp_path: Path, trial: list[list[str]]) -> None:
    place, alone = Place(tmp_path / "together"), Place(tmp_path / "alone")
    for own in (place, alone):
        own.folder.mkdir()

    def words(number: int, own: Place) -> list[object]:
        given = [word for parameter in trial[number] for word in ("-P", parameter)]
        return [*Place.MLFLOW_RUN, *COMMON, *given, "-P", f"output={own.folder}/{number}.csv"]

    began = time.monotonic()
    everybody = [place.start(*words(number, place)) for number in range(4)]
    said = [process.communicate()[0] for process in everybody]
    print(f"{time.monotonic() - began:.0f} s; {sum(text.count(TOLD) for text in said)} times somebody said he waits")
    assert [process.returncode for process in everybody] == [0] * 4, "\n".join(said)
    assert not [text for text in said if "Traceback" in text or "locked" in text]

    runs = place.runs()
    assert {run.info.status for run in runs} == {"FINISHED"}
    done = Counter(run.data.tags["key"] for run in runs if run.data.tags["stage"] not in ("main", "score"))
    assert set(done.values()) == {1}  # nothing twice
    stages = Counter(run.data.tags["stage"] for run in runs)
    assert stages["main"] == stages["score"] == 4
    assert list(place.folder.glob("home/unfinished/*/")) == []
    assert list(place.folder.rglob(".partial*")) == []
    check_registry(place)

    # What each of them has is what it has alone, one after another.
    for number in range(4):
        code, text = alone.run(*words(number, alone))
        assert code == 0, text
    expected = {facts["key"]: facts for facts in map(told, alone.runs()) if facts["stage"] in LEARNT}
    found = {facts["key"]: facts for facts in map(told, place.runs()) if facts["stage"] in LEARNT}
    assert found == expected
    for number, text in enumerate(said):
        assert "balanced over patients" in text
        scores = pd.read_csv(place.folder / f"{number}.csv")
        assert len(scores) == len(pd.read_csv(alone.folder / f"{number}.csv"))
        assert scores.label.notna().all()
