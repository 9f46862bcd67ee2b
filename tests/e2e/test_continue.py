"""A training that is interrupted or killed continues where it stopped."""

import signal

import numpy as np
import pytest
from safetensors.numpy import load_file


def after_epoch(process, number):
    """Read what a training says until this epoch is done."""
    for line in process.stdout:
        if line.startswith(f"epoch {number}/"):
            return
    raise AssertionError("it ended before")


def test_main_takes_its_step_along(place, main_command):
    running = place.start(*place.MLFLOW_RUN, *main_command)
    after_epoch(running, 1)
    place.stop(running, signal.SIGINT)
    assert running.returncode != 0
    statuses = {run.data.tags.get("stage"): run.info.status for run in place.runs()}
    assert statuses["prepare"] == "FINISHED"
    assert "RUNNING" not in statuses.values(), statuses


def weights(place, run):
    return load_file(place.client.download_artifacts(run.info.run_id, "checkpoint/encoder.safetensors"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_same_command_continues_and_ends_with_the_same_weights(place, phantoms, number):
    words = ["sslbt", "pretrain-encoder", "--data", phantoms, "--preset", "tiny", "--epochs", "6"]
    training = place.start(*words)
    after_epoch(training, 2)
    said = place.stop(training, number)
    (stopped,) = place.runs()
    if number != signal.SIGKILL:
        assert training.returncode == 130
        assert "the same command continues" in said
        assert stopped.info.status == "KILLED"
    assert len(list((place.folder / "home" / "unfinished").glob("*.safetensors"))) == 1

    code, said = place.run(*words)
    assert code == 0, said
    (continued,) = place.runs("attributes.status = 'FINISHED'")
    steps = [point.step for point in place.client.get_metric_history(continued.info.run_id, "train/loss")]
    assert steps == list(range(6)), "no gap, no epoch twice"
    assert not list((place.folder / "home" / "unfinished").iterdir())

    assert place.run(*words)[0] == 0
    whole = next(
        run for run in place.runs("attributes.status = 'FINISHED'") if run.info.run_id != continued.info.run_id
    )
    expected, found = weights(place, whole), weights(place, continued)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert np.array_equal(tensor, found[name]), name
