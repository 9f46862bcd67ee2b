"""What a training tells, and that telling it again changes nothing."""

import mlflow
import pytest
from mlflow import MlflowClient

from sslbt.tracking.run import Run
from sslbt.tracking.telling import Silence, Telling
from sslbt.training.loop import Schedule
from sslbt.training.state import Epoch

HISTORY = [
    Epoch(number, 1.6e9 + 100.25 * number, {"train/loss": 1 / (number + 1), "probe/score": 0.5 + 0.1 * number})
    for number in range(4)
]


class Logged(list):
    def __call__(self, metrics: dict, step: int, ended: float) -> None:
        self.append((step, ended, metrics))


def test_every_past_epoch_is_logged_with_the_time_it_ended(capsys: pytest.CaptureFixture) -> None:
    logged = Logged()
    telling = Telling(logged, epochs=6, steps=10)
    telling.begin(HISTORY[:3], 0)
    telling.epoch(HISTORY[3])
    telling.end()
    assert logged == [(epoch.number, epoch.ended, epoch.metrics) for epoch in HISTORY]
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "continuing after epoch 3 of 6, step 0 of the next"
    assert said[1].startswith("epoch 4/6  loss 0.2500  score 0.800")


def test_time_left_goes_by_the_steps_of_this_process(capsys: pytest.CaptureFixture, monkeypatch) -> None:
    now = 100.0
    monkeypatch.setattr("sslbt.terminal.time.monotonic", lambda: now)
    telling = Telling(Logged(), epochs=2, steps=10)
    telling.begin([], 8)  # of the first epoch, which another process trained
    now += 6
    telling.step(0, 10, 0.5)  # two steps in six seconds
    telling.epoch(Epoch(0, now, {"train/loss": 0.5}))
    said = capsys.readouterr().err.splitlines()
    assert said == ["continuing after epoch 0 of 2, step 8 of the next", "epoch 1/2  loss 0.5000  30 s left"]


def test_a_new_training_is_not_called_continued(capsys: pytest.CaptureFixture) -> None:
    logged = Logged()
    telling = Telling(logged, epochs=6, steps=10)
    telling.begin([], 0)
    telling.step(0, 1, 0.5)
    telling.end()
    assert (logged, capsys.readouterr().err) == ([], "")


@pytest.mark.usefixtures("experiment")
def test_told_again_by_the_next_process_nothing_is_in_the_store_twice(store: MlflowClient) -> None:
    with mlflow.start_run() as run:
        for known in (0, 2, 4):  # epochs known when a process began; each is told all of them, and one more
            report = Run(run.info.run_id, None).report(Schedule(5, 10, 0.1))  # type: ignore[arg-type]
            report.begin(HISTORY[:known], 0)
            for epoch in HISTORY[known : known + 2]:
                report.epoch(epoch)
            report.end()
    for name in ("train/loss", "probe/score"):
        points = store.get_metric_history(run.info.run_id, name)
        found = [(point.step, point.timestamp, point.value) for point in points]
        assert found == [(epoch.number, round(1000 * epoch.ended), epoch.metrics[name]) for epoch in HISTORY]


@pytest.mark.usefixtures("experiment")
def test_what_is_not_finite_is_left_out(store: MlflowClient) -> None:
    with mlflow.start_run() as run:
        Run(run.info.run_id, None).metrics({"a": float("nan"), "b": 1.0}, step=3, ended=1.5e9)  # type: ignore[arg-type]
    assert store.get_run(run.info.run_id).data.metrics == {"b": 1.0}


def test_processes_but_the_first_tell_nothing(capsys: pytest.CaptureFixture) -> None:
    silence = Silence()
    silence.begin(HISTORY, 0)
    silence.step(4, 1, 0.5)
    silence.epoch(HISTORY[3])
    silence.end()
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
