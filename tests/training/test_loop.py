import math
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy import BATCH, EPOCHS, STEPS, Toy, different, left, schedule, weights

from sslbt.errors import UserError
from sslbt.training import checkpoint, loop
from sslbt.training.schedule import Schedule


def test_every_step_has_a_chance_of_its_own(tmp_path: Path) -> None:
    task = Toy()
    task.train(tmp_path)
    assert len(task.chance) == len(set(task.chance)) == EPOCHS * STEPS


def test_the_seed_decides_and_the_state_of_torch_does_not(tmp_path: Path) -> None:
    chance = {}
    for name, start, seed in (("a", 1, 3), ("b", 2, 3), ("c", 1, 4)):
        torch.manual_seed(start)
        task = Toy()
        task.train(tmp_path / name, seed=seed)
        chance[name] = task.chance
    assert chance["a"] == chance["b"]
    assert different(left(tmp_path / "a"), left(tmp_path / "b")) == set()
    assert not set(chance["a"]) & set(chance["c"])


def test_an_epoch_is_measured_once_by_every_watcher_and_remembered(tmp_path: Path) -> None:
    task = Toy()
    state = task.train(tmp_path)
    assert task.been["watcher"] == EPOCHS  # the toy itself looks whether the model is ready to score
    assert [epoch.number for epoch in state.history] == list(range(EPOCHS))
    assert all(earlier.ended <= later.ended for earlier, later in pairwise(state.history))
    last = float(task.model[6].weight.detach().sum())
    assert state.history[-1].metrics["probe/weight"] == pytest.approx(last)
    assert not task.model.training


def test_loss_and_gradient_of_an_epoch_are_means_over_its_steps(tmp_path: Path) -> None:
    class Constant(Toy):
        def loss(self, batch: Tensor) -> Tensor:
            self.at("loss")
            slope = 0.1 * self.been["loss"]  # the weights' sum, of any slope: a gradient known beforehand
            total = sum(weight.sum() for weight in self.model.parameters())
            return slope * (total - total.detach()) + 10 * self.been["loss"]

    task = Constant()
    metrics = [epoch.metrics for epoch in task.train(tmp_path, epochs=2).history]
    root = math.sqrt(sum(weight.numel() for weight in task.model.parameters()))
    assert [own["train/loss"] for own in metrics] == pytest.approx([20, 50])
    assert [own["train/gradient_norm"] for own in metrics] == pytest.approx([0.2 * root, 0.5 * root])


def test_training_learns(tmp_path: Path) -> None:
    history = Toy().train(tmp_path, epochs=60, learning_rate=0.03).history
    losses = [epoch.metrics["train/loss"] for epoch in history]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_the_report_hears_everything_in_its_order(tmp_path: Path) -> None:
    task = Toy()
    task.train(tmp_path)
    wanted: list[tuple] = [("begin", 0)]
    for epoch in range(EPOCHS):
        wanted += [*(("step", epoch, step + 1) for step in range(STEPS)), ("epoch", epoch)]
    assert task.told == [*wanted, ("end",)]


@pytest.mark.parametrize("place", ["loss", "step", "watcher", "epoch"])
def test_the_report_hears_the_end_also_where_something_fails(tmp_path: Path, place: str) -> None:
    def fail(here: str, now: int) -> None:
        if (here, now) == (place, 2):
            raise RuntimeError("of another's")

    task = Toy(fail)
    with pytest.raises(RuntimeError, match="of another's"):
        task.train(tmp_path)
    assert task.told[0] == ("begin", 0)
    assert task.told.count(("end",)) == 1
    assert task.told[-1] == ("end",)
    again = Toy()
    again.train(tmp_path)
    assert again.told[0] == ("begin", {"loss": 0, "step": 0, "watcher": 1, "epoch": 2}[place])


# the best epoch


@pytest.mark.parametrize(
    ("shape", "scores", "best"),
    [
        ("constant", (0.1, 0.9, 0.2, 0.9, 0.3), 3),
        ("constant", (5, 4, 3, 2, 1), 0),
        ("constant", range(5), 4),
        ("cosine", (5, 4, 3, 2, 1), 4),  # the only one at a low rate
    ],
)
def test_the_model_ends_as_it_was_in_its_best_epoch(
    tmp_path: Path, shape: str, scores: tuple[float, ...], best: int
) -> None:
    after = []
    task = Toy(lambda place, _: place == "watcher" and after.append(snapshot(task)), scores)
    state = task.train(tmp_path, shape=shape)
    assert state.best == best
    assert different(task.model.state_dict(), after[best]) == set()
    assert different(weights(tmp_path), after[-1]) == set()  # the last is there too
    assert (best == EPOCHS - 1) == (different(after[best], after[-1]) == set())


def snapshot(task: Toy) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in task.model.state_dict().items()}


def test_without_scores_the_model_ends_as_it_was_last(tmp_path: Path) -> None:
    task = Toy()
    state = task.train(tmp_path)
    assert state.best is None
    assert math.isnan(state.best_score)
    assert different(task.model.state_dict(), weights(tmp_path)) == set()
    assert not (tmp_path / "best.safetensors").exists()


# what is not finite


class Diverging(Toy):
    """The loss of its eighth step is not a number."""

    def loss(self, batch: Tensor) -> Tensor:
        return super().loss(batch) * (math.nan if self.been["loss"] == 8 else 1)


class Breaking(Toy):
    """The loss of its eighth step is finite, the gradient of that loss is not."""

    def loss(self, batch: Tensor) -> Tensor:
        loss = super().loss(batch)
        return loss + (0 * loss).sqrt() if self.been["loss"] == 8 else loss


class Overflowing(Toy):
    """The loss of its eighth step is too large, in one of several places."""

    def loss(self, batch: Tensor) -> Tensor:
        return super().loss(batch) * (math.inf if self.been["loss"] == 8 else 1)


@pytest.mark.parametrize("kind", [Diverging, Breaking, Overflowing])
@pytest.mark.parametrize("save_every", [60, 0], ids=["saved_by_epoch", "saved_by_step"])
def test_what_is_not_finite_stops_the_training_and_leaves_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Toy], save_every: float
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", save_every)
    shown: list[list[str]] = []
    task = kind()
    own = task.ready
    monkeypatch.setattr(task, "ready", lambda rows: (shown.append(task.files(rows)), own(rows))[1])
    with pytest.raises(UserError) as caught:
        task.train(tmp_path)
    said, last = str(caught.value), tmp_path / "last.safetensors"
    assert "epoch 3, step 2 of 3" in said
    assert f"the batch showed {', '.join(shown[7][:4])} and others ({tmp_path / 'not_finite.txt'} names all)" in said
    assert f"the last good checkpoint is {last}; lower learning_rate" in said
    assert (tmp_path / "not_finite.txt").read_text().split() == shown[7]
    assert len(shown[7]) == BATCH

    tensors, about = checkpoint.load(last)
    assert (len(about["history"]), about["step"]) == (2, 1 if save_every == 0 else 0)
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    again = Toy()
    again.train(tmp_path)  # with another rate, say
    assert again.told[0] == ("begin", 2)


def test_where_nothing_is_saved_yet_that_is_said(tmp_path: Path) -> None:
    class Hopeless(Toy):
        def loss(self, batch: Tensor) -> Tensor:
            return super().loss(batch) * math.nan

    with pytest.raises(UserError, match=r"loss is nan in epoch 1, step 1 of 3.*checkpoint is not yet written"):
        Hopeless().train(tmp_path / "new")


@pytest.mark.parametrize("damage", [b"", b"garbage " * 100, None], ids=["empty", "garbage", "cut short"])
def test_a_damaged_checkpoint_is_named_with_the_remedy(tmp_path: Path, damage: bytes | None) -> None:
    Toy().train(tmp_path, epochs=1)
    last = tmp_path / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-50] if damage is None else damage)
    with pytest.raises(UserError, match=r"last\.safetensors: damaged .*; remove it to train from the beginning"):
        Toy().train(tmp_path)
    last.unlink()
    assert len(Toy().train(tmp_path).history) == EPOCHS


# the rate


def test_the_rate_warms_up_over_a_tenth_and_falls_along_half_a_cosine() -> None:
    plan = Schedule(epochs=20, steps_per_epoch=5, learning_rate=0.4)
    rates = [plan.rate(step) for step in range(100)]
    by_hand = {0: 0.04, 4: 0.2, 9: 0.4, 10: 0.4, 40: 0.3, 55: 0.2, 70: 0.1}  # cos 60°, 90°, 120°
    assert {step: rates[step] for step in by_hand} == pytest.approx(by_hand)
    assert all(later > earlier for earlier, later in pairwise(rates[:10]))
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))
    assert 0 < rates[-1] < 0.001


@pytest.mark.parametrize("epochs", [1, 2])
def test_the_shortest_trainings_have_a_rate(epochs: int) -> None:
    plan = Schedule(epochs=epochs, steps_per_epoch=1, learning_rate=0.4)
    assert plan.rate(0) == 0.4
    assert all(0 <= plan.rate(step) <= 0.4 for step in range(epochs))


def test_the_history_holds_the_rate_of_the_last_step(tmp_path: Path) -> None:
    history = Toy().train(tmp_path).history
    wanted = [schedule().rate(STEPS * epoch + STEPS - 1) for epoch in range(EPOCHS)]
    assert [epoch.metrics["train/learning_rate"] for epoch in history] == wanted


@pytest.mark.skipif(not (shutil.which("c++") or shutil.which("g++")), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_compiled_training_has_nearly_the_same_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))

    class Even(Toy):
        """Without dropout, whose chance a compiler draws elsewhere."""

        def __init__(self) -> None:
            super().__init__()
            self.model[3].p = 0.0

    losses = [
        [epoch.metrics["train/loss"] for epoch in Even().train(tmp_path / str(compiled), compiled=compiled).history]
        for compiled in (False, True)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert losses[1] != losses[0]  # it was compiled
