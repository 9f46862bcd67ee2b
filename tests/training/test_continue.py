"""A training that is killed or stopped goes on as if nothing had happened, to the last bit."""

import os
import signal
from pathlib import Path

import pytest
import torch
from toy import EPOCHS, STEPS, Strike, Toy, different, left, timeless

from sslbt.training import checkpoint, loop

PLACES = {"ready": EPOCHS * STEPS, "loss": EPOCHS * STEPS, "step": EPOCHS * STEPS, "watcher": EPOCHS, "epoch": EPOCHS}
SCORES = (0.3, 0.5, 0.5, 0.2, 0.1)


class Killed(BaseException):
    """Nobody in the code under test catches it."""


def kill(place: str, time: int) -> Strike:
    def strike(here: str, now: int) -> None:
        if (here, now) == (place, time):
            raise Killed

    return strike


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, list, dict]:
    """An uninterrupted training: what every other way has to end at."""
    folder = tmp_path_factory.mktemp("whole")
    task = Toy(scores=SCORES)
    state = task.train(folder)
    return left(folder), timeless(state.history), task.model.state_dict()


def goes_on(folder: Path, whole: tuple[dict, list, dict]) -> Toy:
    """Continue as a new process does; the end has to be that of the uninterrupted training."""
    torch.manual_seed(99)
    task = Toy(scores=SCORES)
    state = task.train(folder)
    assert different(left(folder), whole[0]) == set()
    assert timeless(state.history) == whole[1]
    assert different(task.model.state_dict(), whole[2]) == set()
    assert sorted(os.listdir(folder)) == ["best.safetensors", "last.safetensors"]
    return task


def done(folder: Path) -> int:
    """Steps that a checkpoint holds."""
    if not (folder / "last.safetensors").exists():
        return 0
    about = checkpoint.load(folder / "last.safetensors")[1]
    return len(about["history"]) * STEPS + about["step"]


@pytest.mark.parametrize("save_every", [60, 0], ids=["saved_by_epoch", "saved_by_step"])
@pytest.mark.parametrize("place", PLACES)
def test_a_training_killed_anywhere_goes_on(
    tmp_path: Path, whole: tuple, monkeypatch: pytest.MonkeyPatch, place: str, save_every: float
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", save_every)
    for time in range(1, PLACES[place] + 1):
        folder = tmp_path / str(time)
        with pytest.raises(Killed):
            Toy(kill(place, time), SCORES).train(folder)
        complete = {"ready": time - 1, "loss": time - 1, "step": time}.get(place, time * STEPS)
        if save_every == 0:
            assert done(folder) == complete  # the step that is under way is lost, no other
        elif place in ("watcher", "epoch"):
            assert done(folder) == complete - STEPS * (place == "watcher")
        else:
            assert done(folder) == (time - 1) // STEPS * STEPS
        lost = EPOCHS * STEPS - done(folder)
        assert goes_on(folder, whole).been["loss"] == lost


@pytest.mark.parametrize("moment", ["write_bytes", "replace", "replaced"])
@pytest.mark.parametrize("save_every", [60, 0], ids=["saved_by_epoch", "saved_by_step"])
def test_a_training_killed_while_it_saves_goes_on(
    tmp_path: Path, whole: tuple, monkeypatch: pytest.MonkeyPatch, moment: str, save_every: float
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", save_every)
    owner = Path if moment == "write_bytes" else os
    name = moment.removesuffix("d")
    right, saves = getattr(owner, name), 0

    def strike(place: Path, what: object) -> None:
        nonlocal saves
        saves += 1
        if saves != at:
            right(place, what)
            return
        if moment == "write_bytes":
            right(place, what[: len(what) // 2])
        if moment == "replaced":
            right(place, what)
        raise Killed

    for at in range(1, EPOCHS * STEPS * (save_every == 0) + EPOCHS + 3):  # two of them are of the best epoch
        folder, saves = tmp_path / str(at), 0
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, strike)
            with pytest.raises(Killed):
                Toy(scores=SCORES).train(folder)
        goes_on(folder, whole)


def test_a_training_killed_again_and_again_goes_on(
    tmp_path: Path, whole: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
    while done(tmp_path) < EPOCHS * STEPS - 1:
        before = done(tmp_path)
        with pytest.raises(Killed):
            Toy(kill("loss", 2), SCORES).train(tmp_path)
        assert done(tmp_path) == before + 1
    goes_on(tmp_path, whole)


def test_a_finished_training_is_not_trained_again(tmp_path: Path, whole: tuple) -> None:
    Toy(scores=SCORES).train(tmp_path)
    assert goes_on(tmp_path, whole).been == {}


def test_the_toy_would_show_a_difference(tmp_path: Path, whole: tuple) -> None:
    Toy(scores=SCORES).train(tmp_path, seed=4)
    counts = {"1.num_batches_tracked", *(f"optimizer.{number}.step" for number in range(8))}
    assert different(left(tmp_path), whole[0]) == whole[0].keys() - counts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("place", PLACES)
def test_a_training_asked_to_stop_saves_this_very_step_and_goes_on(
    tmp_path: Path, whole: tuple, place: str, number: int
) -> None:
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    for time in range(1, PLACES[place] + 1):
        folder = tmp_path / str(time)

        def ask(here: str, now: int, time: int = time) -> None:
            if (here, now) == (place, time):
                signal.raise_signal(number)

        task = Toy(ask, SCORES)
        with pytest.raises(KeyboardInterrupt):
            task.train(folder)
        assert {one: signal.getsignal(one) for one in before} == before
        assert task.told[-1] == ("end",)
        # Asked once a step has been told of, the next is the last; while an epoch is measured or told of, none is.
        own = {"ready": time, "loss": time, "step": time + (time % STEPS > 0)}.get(place, time * STEPS)
        assert done(folder) == own
        goes_on(folder, whole)


def ask_twice(first: int, second: int) -> Strike:
    def strike(place: str, time: int) -> None:
        if (place, time) == ("loss", 5):
            signal.raise_signal(first)
            signal.raise_signal(second)

    return strike


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_second_ctrl_c_interrupts_at_once(tmp_path: Path, whole: tuple, first: int) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        Toy(ask_twice(first, signal.SIGINT), SCORES).train(tmp_path)
    assert done(tmp_path) == STEPS  # nothing is saved any more: the checkpoint is that of the first epoch
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    goes_on(tmp_path, whole)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_sigterm_after_another_request_is_no_second_one(
    tmp_path: Path, whole: tuple, first: int, capfd: pytest.CaptureFixture
) -> None:
    with pytest.raises(KeyboardInterrupt):
        Toy(ask_twice(first, signal.SIGTERM), SCORES).train(tmp_path)
    assert done(tmp_path) == 5
    assert capfd.readouterr().err.count("stopping after this step") == 1
    goes_on(tmp_path, whole)
