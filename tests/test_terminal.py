import io
import time

import pytest

from sslbt import terminal
from sslbt.cli import main
from sslbt.terminal import Countdown, progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until its only element is changed."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("total", "first", "done", "passed", "left"),
    [
        (100, 0, 50, 30, "30 s left"),
        (100, 0, 1, 1, "1 min 39 s left"),
        (100, 0, 10, 40, "6 min 0 s left"),
        (100, 0, 10, 10 * 60, "1 h 30 min left"),
        (1000, 0, 1, 400, "111 h 0 min left"),
        (100, 0, 100, 30, "0 s left"),
        (100, 0, 0, 30, ""),  # no pace yet
        (100, 80, 90, 20, "20 s left"),  # by the pace of this process: 80 steps were done before it began
        (100, 80, 80, 20, ""),
        (100, 0, 99, 99 * 59.6, "1 min 0 s left"),
    ],
)
def test_the_time_left_follows_from_this_process_s_pace(
    clock: list[float], total: int, first: int, done: int, passed: float, left: str
) -> None:
    countdown = Countdown(total, first, "training")
    clock[0] += passed
    countdown.step(done, "")
    assert countdown.left == left


def test_elsewhere_than_on_a_terminal_a_line_follows_a_minute_of_silence(
    clock: list[float], capsys: pytest.CaptureFixture
) -> None:
    countdown = Countdown(1000, 0, "training")
    said = {}
    for done in range(1, 201):
        clock[0] += 1
        countdown.step(done, f"step {done}")
        if done == 100:
            countdown.say("epoch 1")  # whatever is said breaks the silence
        if line := capsys.readouterr().err:
            said[done] = line
    assert said == {
        61: "training: step 61  15 min 39 s left\n",
        100: "epoch 1  15 min 0 s left\n",
        161: "training: step 161  13 min 59 s left\n",
    }
    countdown.close()


def test_on_a_terminal_there_is_a_bar_from_where_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal_ = Terminal()
    monkeypatch.setattr("sys.stderr", terminal_)
    countdown = Countdown(100, 40, "training")
    countdown.bar.mininterval = 0
    countdown.step(70, "epoch 2, loss 0.5000")
    assert countdown.bar.n == 70
    countdown.say("epoch 2/3")
    countdown.close()
    shown = terminal_.getvalue()
    assert "40/100" in shown
    assert "70/100" in shown
    assert "epoch 2, loss 0.5000" in shown
    assert "epoch 2/3" in shown


def test_progress_gives_every_item_and_says_what_is_done(capsys: pytest.CaptureFixture) -> None:
    assert list(progress(range(2001), "reading", "files", 2001)) == list(range(2001))
    said = capsys.readouterr().err.splitlines()
    assert said == ["reading: 1000 of 2001 files", "reading: 2000 of 2001 files", "reading: 2001 files, done"]


def test_nobody_listening_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Closed())
    terminal.say("a line")


def test_a_name_steers_no_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    terminal.say("left out: \x1b[2J\r\x07.mat: größer\n\tnext line")
    assert main(["score", "--input", "x", "--model", "\x1b]0;hacked\x07.onnx"]) == 2
    said = capsys.readouterr().err
    assert "größer\n\tnext line\n" in said
    assert "hacked" in said
    assert not set("\x1b\r\x07") & set(said)
