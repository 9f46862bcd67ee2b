import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslbt.errors import UserError
from sslbt.training import checkpoint
from sslbt.training.loop import Metrics, Schedule, best_device, rate, train

EPOCHS, STEPS = 5, 3


class Toy:
    """Convolution, batch statistics and dropout on random pictures: whatever chance or state a training can have."""

    def __init__(self) -> None:
        self.model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(4 * 36, 2)
        )
        self.seen: list[Tensor] = []

    def batches(self) -> Iterator[Tensor]:
        for _ in range(STEPS):
            self.seen.append(torch.rand(6, 1, 8, 8))
            yield self.seen[-1].to(best_device())

    def loss(self, batch: Tensor) -> Tensor:
        brighter = (batch.mean(dim=(1, 2, 3)) > 0.5).long()
        return F.cross_entropy(self.model(batch).float(), brighter)


class Killed(Exception):
    pass


class Killer:
    """Stands in for a watcher, a reporter or the batches, and kills the training there, once."""

    def __init__(self, place: str, epoch: int) -> None:
        self.place, self.epoch = place, epoch

    def watch(self, epoch: int, model: nn.Module) -> Metrics:
        self.strike("watcher", epoch)
        return {"epoch": float(epoch), "weight": float(model[5].weight.detach().sum())}

    def report(self, epoch: int, metrics: Metrics) -> None:
        self.strike("report", epoch)

    def strike(self, place: str, epoch: int) -> None:
        if (place, epoch) == (self.place, self.epoch):
            raise Killed


class Interrupted(Toy):
    """Killed in the second step of an epoch."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    def loss(self, batch: Tensor) -> Tensor:
        if len(self.seen) == self.epoch * STEPS + 2:
            raise Killed
        return super().loss(batch)


def schedule(**other: float) -> Schedule:
    return Schedule(**{"epochs": EPOCHS, "steps_per_epoch": STEPS, "learning_rate": 0.01, "seed": 3} | other)


def quiet(epoch: int, metrics: Metrics) -> None:
    pass


def whole(path: Path) -> tuple[dict[str, Tensor], list[Metrics]]:
    """An uninterrupted training: what every other way has to end at."""
    torch.manual_seed(1)
    task = Toy()
    history = train(task, schedule(), path / "whole", [Killer("", -1).watch], quiet)
    return task.model.state_dict(), history


def timeless(history: list[Metrics]) -> list[Metrics]:
    return [{name: value for name, value in metrics.items() if name != "train/seconds"} for metrics in history]


@pytest.mark.parametrize("epoch", [0, 2, EPOCHS - 1])
@pytest.mark.parametrize("place", ["watcher", "report", "step"])
def test_a_killed_training_goes_on_as_if_nothing_had_happened(tmp_path: Path, place: str, epoch: int) -> None:
    wanted, wanted_history = whole(tmp_path)
    unfinished = tmp_path / "unfinished.safetensors"

    torch.manual_seed(1)
    task = Interrupted(epoch) if place == "step" else Toy()
    killer = Killer(place, epoch)
    with pytest.raises(Killed):
        train(task, schedule(), unfinished, [killer.watch], killer.report)
    assert unfinished.exists() == (epoch > 0 or place == "report")  # what was reported is safe

    torch.manual_seed(1 if epoch == 0 else 99)  # the new process begins elsewhere; only a start from zero can't help it
    task, reported = Toy(), []
    history = train(
        task, schedule(), unfinished, [Killer("", -1).watch], lambda number, metrics: reported.append((number, metrics))
    )
    found = task.model.state_dict()
    assert found.keys() == wanted.keys()
    assert {name for name in found if not torch.equal(found[name], wanted[name])} == set()
    assert timeless(history) == timeless(wanted_history)
    assert [number for number, _ in reported] == list(range(EPOCHS))
    assert [metrics for _, metrics in reported] == history
    assert not unfinished.exists()


def test_the_toy_would_show_a_difference(tmp_path: Path) -> None:
    wanted, _ = whole(tmp_path)
    torch.manual_seed(1)
    task = Toy()
    train(task, schedule(seed=4), tmp_path / "other", [], quiet)
    assert {name for name, tensor in task.model.state_dict().items() if torch.equal(tensor, wanted[name])} == {
        "1.num_batches_tracked"
    }


def test_a_training_killed_twice_still_ends_at_the_same_weights(tmp_path: Path) -> None:
    wanted, _ = whole(tmp_path)
    unfinished = tmp_path / "unfinished.safetensors"
    for epoch in (1, 3):
        torch.manual_seed(1)
        with pytest.raises(Killed):
            train(Toy(), schedule(), unfinished, [Killer("watcher", epoch).watch], quiet)
        assert len(checkpoint.load(unfinished)[1]["history"]) == epoch
    task = Toy()
    train(task, schedule(), unfinished, [], quiet)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in task.model.state_dict().items())


def test_no_two_epochs_see_the_same_pictures(tmp_path: Path) -> None:
    task = Toy()
    train(task, schedule(), tmp_path / "u", [], quiet)
    assert len(task.seen) == EPOCHS * STEPS
    assert len({picture.numpy().tobytes() for picture in task.seen}) == EPOCHS * STEPS


def test_watchers_find_the_model_ready_to_score_and_their_figures_in_the_history(tmp_path: Path) -> None:
    modes = []

    def watch(epoch: int, model: nn.Module) -> Metrics:
        modes.append((model.training, torch.is_grad_enabled()))
        return {"probe/x": 1.5} if epoch == 2 else {}

    task = Toy()
    history = train(task, schedule(), tmp_path / "u", [watch], quiet)
    assert modes == [(False, False)] * EPOCHS
    assert [metrics.get("probe/x") for metrics in history] == [None, None, 1.5, None, None]
    assert all(math.isfinite(metrics["train/loss"]) for metrics in history)
    assert not task.model.training


def test_training_learns(tmp_path: Path) -> None:
    history = train(Toy(), schedule(epochs=60, learning_rate=0.03), tmp_path / "u", [], quiet)
    losses = [metrics["train/loss"] for metrics in history]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


class Diverging(Toy):
    def loss(self, batch: Tensor) -> Tensor:
        return super().loss(batch) * (math.nan if len(self.seen) == 2 * STEPS + 1 else 1)


class Breaking(Toy):
    """Its last loss of an epoch is finite, the gradient of that loss is not."""

    def loss(self, batch: Tensor) -> Tensor:
        loss = super().loss(batch)
        return loss + (0 * loss).sqrt() if len(self.seen) == 3 * STEPS else loss


@pytest.mark.parametrize("task", [Diverging(), Breaking()], ids=lambda task: type(task).__name__)
def test_a_loss_that_is_no_number_stops_the_training_and_leaves_the_last_good_epoch(tmp_path: Path, task: Toy) -> None:
    unfinished = tmp_path / "u.safetensors"
    with pytest.raises(UserError, match=r"the loss is .* in epoch 2, its gradient nan; lower --learning-rate"):
        train(task, schedule(), unfinished, [], quiet)
    tensors, about = checkpoint.load(unfinished)
    assert len(about["history"]) == 2
    assert all(tensor.isfinite().all() for tensor in tensors.values())


@pytest.mark.parametrize("damage", [b"", b"garbage " * 100, None])
def test_a_damaged_unfinished_file_is_named_with_the_remedy(tmp_path: Path, damage: bytes | None) -> None:
    unfinished = tmp_path / "u.safetensors"
    with pytest.raises(Killed):
        train(Toy(), schedule(), unfinished, [Killer("watcher", 1).watch], quiet)
    unfinished.write_bytes(unfinished.read_bytes()[:-50] if damage is None else damage)
    with pytest.raises(UserError, match=r"u\.safetensors: damaged .*; remove it to train from the beginning"):
        train(Toy(), schedule(), unfinished, [], quiet)
    unfinished.unlink()
    assert len(train(Toy(), schedule(), unfinished, [], quiet)) == EPOCHS


def test_the_rate_warms_up_over_a_tenth_and_falls_along_half_a_cosine() -> None:
    plan = Schedule(epochs=20, steps_per_epoch=5, learning_rate=0.4)
    rates = [rate(plan, step) for step in range(100)]
    by_hand = {0: 0.04, 4: 0.2, 9: 0.4, 10: 0.4, 40: 0.3, 55: 0.2, 70: 0.1}  # cos 60°, 90°, 120°
    assert {step: rates[step] for step in by_hand} == pytest.approx(by_hand)
    assert all(later > earlier for earlier, later in pairwise(rates[:10]))
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))
    assert 0 < rates[-1] < 0.001


@pytest.mark.parametrize("epochs", [1, 2])
def test_the_shortest_trainings_have_a_rate(epochs: int) -> None:
    plan = Schedule(epochs=epochs, steps_per_epoch=1, learning_rate=0.4)
    assert rate(plan, 0) == 0.4
    assert all(0 <= rate(plan, step) <= 0.4 for step in range(epochs))


def test_the_history_holds_the_rate_of_the_last_step(tmp_path: Path) -> None:
    history = train(Toy(), schedule(), tmp_path / "u", [], quiet)
    wanted = [rate(schedule(), STEPS * epoch + STEPS - 1) for epoch in range(EPOCHS)]
    assert [metrics["train/learning_rate"] for metrics in history] == wanted
