"""A training that is interrupted or killed continues where it stopped: the same weights, the same run, whole curves."""

import random
import signal
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

EPOCHS = 6


def after_epoch(process, number):
    """Read what a training says until this epoch is done."""
    return until(process, f"epoch {number}/")


def until(process, beginning):
    for line in process.stdout:
        if line.startswith(beginning):
            return
    raise AssertionError(f"it ended before {beginning}")


def command(phantoms):
    return ["sslbt", "pretrain-encoder", "--data", phantoms, "--preset", "tiny", "--epochs", EPOCHS]


def weights(place, run):
    return load_file(place.client.download_artifacts(run.info.run_id, "checkpoint/encoder_last.safetensors"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, phantoms, make_place):
    """Weights of a training that nobody interrupted."""
    place = make_place(tmp_path_factory.mktemp("undisturbed"))
    code, said = place.run(*command(phantoms))
    assert code == 0, said
    (run,) = place.runs()
    return weights(place, run)


def assert_whole(place, run, undisturbed):
    """One finished run with every epoch once and the weights of an uninterrupted training."""
    assert run.info.status == "FINISHED"
    for metric in ("train/loss", "train/seconds", "probe/rank"):
        points = place.client.get_metric_history(run.info.run_id, metric)
        assert [point.step for point in points] == list(range(EPOCHS)), f"{metric}: a gap, or an epoch twice"
        assert sorted(point.timestamp for point in points) == [point.timestamp for point in points]
    found = weights(place, run)
    assert undisturbed.keys() == found.keys()
    for name, tensor in undisturbed.items():
        assert np.array_equal(tensor, found[name]), name
    assert not [path for path in (place.folder / "home" / "unfinished").iterdir() if path.suffix != ".lock"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_same_command_continues_the_same_run(place, phantoms, undisturbed, number):
    training = place.start(*command(phantoms))
    after_epoch(training, 2)
    said = place.stop(training, number)
    (stopped,) = place.runs()
    if number != signal.SIGKILL:
        assert training.returncode == 130, said
        assert "the same command continues" in said
        assert "Traceback" not in said
        assert stopped.info.status == "KILLED"
    assert len(list((place.folder / "home" / "unfinished").glob("*/last.safetensors"))) == 1

    code, said = place.run(*command(phantoms))
    assert code == 0, said
    assert f"continuing run {stopped.info.run_id}" in said
    (run,) = place.runs()
    assert run.info.run_id == stopped.info.run_id
    assert_whole(place, run, undisturbed)


def test_killed_at_random_moments_it_still_ends_the_same(place, phantoms, undisturbed):
    dice = random.Random(4)
    for _ in range(4):
        training = place.start(*command(phantoms))
        any(line.startswith("epoch ") for line in training.stdout)  # or it ended, with nothing left to train
        time.sleep(dice.uniform(0, 0.4))
        if training.poll() is not None:
            break
        place.stop(training, signal.SIGKILL)
    if training.returncode != 0:
        code, said = place.run(*command(phantoms))
        assert code == 0, said
    (run,) = place.runs()
    assert_whole(place, run, undisturbed)


def test_two_processes_at_one_training_are_one_too_many(place, phantoms):
    long = [*command(phantoms)[:-1], 1000]
    training = place.start(*long)
    after_epoch(training, 1)
    code, said = place.run(*long)
    assert code == 2
    assert "another process is doing just this; wait" in said
    assert "Traceback" not in said
    place.stop(training, signal.SIGTERM)
    assert [run.info.status for run in place.runs()] == ["KILLED"]


def test_under_mlflow_run_the_run_that_it_opens_takes_over(place, phantoms, undisturbed):
    training = place.start(*command(phantoms))
    after_epoch(training, 2)
    place.stop(training)
    (stopped,) = place.runs()
    words = ["-e", "pretrain-encoder", "-P", f"data={phantoms}", "-P", "preset=tiny", "-P", f"epochs={EPOCHS}"]
    code, said = place.mlflow_run(*words)
    assert code == 0, said
    (run,) = place.runs("attributes.status = 'FINISHED'")
    assert_whole(place, run, undisturbed)
    (before,) = place.runs("attributes.status = 'KILLED'")
    assert before.info.run_id == stopped.info.run_id == run.data.tags["continues"]
    assert before.data.tags["continued_by"] == run.info.run_id


def test_main_takes_its_step_along_and_goes_on_with_the_same_child(place, phantoms, main_command):
    running = place.start(*place.MLFLOW_RUN, *main_command)
    after_epoch(running, 1)
    place.stop(running, signal.SIGINT)
    assert running.returncode != 0
    statuses = {run.data.tags.get("stage"): run.info.status for run in place.runs()}
    assert statuses["prepare"] == "FINISHED"
    assert "RUNNING" not in statuses.values(), statuses
    (begun,) = place.runs("tags.stage = 'pretrain-encoder'")

    running = place.start("sslbt", "main", "--data", phantoms, "--preset", "tiny", "--num-pairs", 64)
    until(running, "--- pretrain-contrastive")
    place.stop(running, signal.SIGTERM)
    (child,) = place.runs("tags.stage = 'pretrain-encoder'")
    assert child.info.run_id == begun.info.run_id
    assert child.info.status == "FINISHED"
    newest = max(place.runs("tags.stage = 'main'"), key=lambda run: run.info.start_time)
    assert child.data.tags["mlflow.parentRunId"] == newest.info.run_id
    points = place.client.get_metric_history(child.info.run_id, "train/loss")
    assert [point.step for point in points] == [0, 1]
