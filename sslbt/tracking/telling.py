"""What a training tells: MLflow its figures, the person at the terminal how far it is."""

from typing import Protocol

from sslbt.terminal import Countdown, say
from sslbt.training.state import Epoch, Metrics


class Log(Protocol):
    """Logs figures of an epoch, measured at `ended` (seconds since 1970)."""

    def __call__(self, metrics: Metrics, step: int, ended: float) -> None: ...


class Telling:
    """Logs every epoch with the time it ended, so that telling it twice changes nothing; says how long it takes."""

    def __init__(self, log: Log, epochs: int, steps: int, kind: str = "") -> None:
        self.log, self.epochs, self.steps, self.kind = log, epochs, steps, kind

    def begin(self, history: list[Epoch], step: int) -> None:
        for epoch in history:
            self._log(epoch)
        done = len(history) * self.steps + step
        if done:
            say(f"continuing after epoch {len(history)} of {self.epochs}, step {step} of the next")
        self.countdown = Countdown(self.epochs * self.steps, done, "training")

    def step(self, epoch: int, step: int, loss: float) -> None:
        where = f"epoch {epoch + 1}, step {step} of {self.steps}, loss {loss:.4f}"
        self.countdown.step(epoch * self.steps + step, where)

    def epoch(self, epoch: Epoch) -> None:
        self._log(epoch)
        shown = {name.split("/")[1]: value for name, value in epoch.metrics.items() if name.startswith("probe/")}
        good = "".join(f"  {name} {value:.3f}" for name, value in shown.items())
        self.countdown.say(f"epoch {epoch.number + 1}/{self.epochs}  loss {epoch.metrics['train/loss']:.4f}{good}")

    def end(self) -> None:
        self.countdown.close()

    def _log(self, epoch: Epoch) -> None:
        metrics = {self.kind + name: value for name, value in epoch.metrics.items()}
        self.log(metrics, step=epoch.number, ended=epoch.ended)


class Silence:
    """Every process but the first."""

    def begin(self, history: list[Epoch], step: int) -> None:
        pass

    def step(self, epoch: int, step: int, loss: float) -> None:
        pass

    def epoch(self, epoch: Epoch) -> None:
        pass

    def end(self) -> None:
        pass
