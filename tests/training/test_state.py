import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from sslbt.errors import UserError
from sslbt.training import checkpoint
from sslbt.training.optimizer import pack
from sslbt.training.schedule import Schedule
from sslbt.training.state import LAST, Epoch, State, steady, weights_of

SCHEDULE = Schedule(3, 9, 0.01, seed=5)
HISTORY = [Epoch(0, 1.5e9 + 0.123456, {"train/loss": 0.1, "probe/score": 0.5}), Epoch(1, 1.5e9 + 9, {})]


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 16, 1))
    model = model.to(memory_format=torch.channels_last)
    model(torch.rand(3, 2, 6, 6)).sum().backward()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    optimizer.step()
    return model, optimizer


def test_a_training_comes_back_from_its_file(tmp_path: Path) -> None:
    model, optimizer = trained()
    state = State(list(HISTORY), 7, 1 / 3, math.pi, 1e-9)
    state.save(tmp_path / "new", model, optimizer, SCHEDULE)
    other, theirs = trained()
    assert State.resume(tmp_path / "new", other, theirs, SCHEDULE) == state
    assert all(torch.equal(other.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    ours, found = (pack(one) for one in (optimizer, theirs))
    assert len(ours) == 3 * 6  # step and two moments of each parameter
    assert ours.keys() == found.keys()
    assert all(torch.equal(ours[name], found[name]) for name in ours)
    for weight, own in theirs.state.items():  # a fused step goes through memory as it lies, not by index
        assert own["exp_avg"].stride() == own["exp_avg_sq"].stride() == weight.stride()
    assert weights_of(checkpoint.load(tmp_path / "new" / LAST)[0]).keys() == model.state_dict().keys()


def test_where_there_is_no_file_a_training_begins(tmp_path: Path) -> None:
    model, optimizer = trained()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert State.resume(tmp_path / "nowhere", model, optimizer, SCHEDULE) == State([], 0, 0.0, 0.0, 0.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not (tmp_path / "nowhere").exists()


def test_the_checkpoint_of_another_training_is_not_continued(tmp_path: Path) -> None:
    model, optimizer = trained()
    State().save(tmp_path, model, optimizer, SCHEDULE)
    for other in ({"epochs": 4}, {"seed": 6}, {"learning_rate": 0.02}):
        with pytest.raises(UserError, match=r"last\.safetensors: belongs to a training of another length"):
            State.resume(tmp_path, model, optimizer, replace(SCHEDULE, **other))


def test_what_another_version_left_is_refused_with_a_remedy(tmp_path: Path) -> None:
    model, optimizer = trained()
    State().save(tmp_path, model, optimizer, SCHEDULE)
    tensors, about = checkpoint.load(tmp_path / LAST)
    lacking = {name: tensor for name, tensor in tensors.items() if name != "0.weight"}
    others = [
        (tensors, {name: value for name, value in about.items() if name != "schedule"}),
        (tensors, {name: value for name, value in about.items() if name != "history"}),
        (tensors, about | {"a fact of later versions": 1}),
        (tensors, about | {"history": [{"number": 0}]}),
        (lacking, about),
        (tensors | {"optimizer.99.exp_avg": torch.ones(1)}, about),
    ]
    for kept, facts in others:
        checkpoint.save(tmp_path / LAST, kept, facts)
        with pytest.raises(UserError, match=r"last\.safetensors: left by another version .*; remove it to begin anew"):
            State.resume(tmp_path, *trained(), SCHEDULE)


class Evil:
    def __reduce__(self) -> tuple:
        return os.mkdir, (os.environ["EVIL_FOLDER"],)


def test_a_pickle_in_its_place_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVIL_FOLDER", str(tmp_path / "evil"))
    torch.save({"a": Evil()}, tmp_path / LAST)
    with pytest.raises(UserError, match=r"last\.safetensors: damaged .*; remove it to train from the beginning"):
        State.resume(tmp_path, *trained(), SCHEDULE)
    assert not (tmp_path / "evil").exists()


def test_an_epoch_that_ends_begins_the_next() -> None:
    state = State(list(HISTORY), 7, 3.0, 4.0, 5.0)
    assert state.end_epoch({"x": 1.0}, 1.5e9 + 20) == Epoch(2, 1.5e9 + 20, {"x": 1.0}) == state.history[-1]
    assert (len(state.history), state.step, state.loss, state.gradient, state.seconds) == (3, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("scores", "best", "score"),
    [
        ((0.3, 0.9, 0.3, 0.8, 0.8, 0.2, 0.2), 5, 0.8),  # medians .3 .6 .3 .8 .8 .8 .2: one lucky look counts for little
        ((0.1, 0.2, None, 0.3, 0.4, 0.5, 0.5, 0.1), 7, 0.5),  # .1 .15 - .2 .3 .4 .5 .5
        ((0.5, 0.5, 0.5, 0.1, 0.1), 3, 0.5),
        ((-1.0, None), 0, -1.0),
        ((None, math.nan), None, math.nan),
        ((), None, math.nan),
    ],
)
def test_the_best_epoch_is_the_last_of_the_highest_steady_scores(scores: tuple, best: int | None, score: float) -> None:
    history = [Epoch(i, 0.0, {} if score is None else {"probe/score": score}) for i, score in enumerate(scores)]
    state = State(history)
    assert state.best == best
    assert state.best_score == pytest.approx(score, nan_ok=True)


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ((1, 1, 1, 1, 1), 2),
        ((0.5, 1, 0.7, 0.3, 0.13), 2),  # not low yet
        ((0.5, 1, 0.7, 0.3, 0.125), 4),
        ((0.5, 1, 0.7, 0.1, 0.01), 3),  # the better one of two
        ((0.01, 1, 0.7, 0.3, 0.2), 2),  # it was low before it fell
        ((0.01, 1, 0.7, 0.3, 0.01), 4),
    ],
)
def test_where_the_rate_falls_only_epochs_at_a_low_rate_count(rates: tuple[float, ...], best: int) -> None:
    scores = (0.6, 0.6, 0.5, 0.4, 0.3)  # medians .6 .6 .6 .5 .4
    history = [
        Epoch(i, 0.0, {"probe/score": score, "train/learning_rate": rate * 2e-3})
        for i, (score, rate) in enumerate(zip(scores, rates, strict=True))
    ]
    assert State(history).best == best


def test_a_steady_score_is_the_median_of_three() -> None:
    scores = [0.3, 0.1, 0.9, 0.2, 0.4]
    assert steady(scores) == pytest.approx([0.3, 0.2, 0.3, 0.2, 0.4])
    assert steady([]) == []
