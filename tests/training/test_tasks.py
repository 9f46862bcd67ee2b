from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from sslbt.nn.encoder import Encoder
from sslbt.nn.heads import Classifier
from sslbt.pretext.masking import Restoration
from sslbt.pretext.pairs import Contrast, Pairs
from sslbt.training import tasks
from sslbt.training.loop import Schedule, train
from sslbt.training.tasks import Classify, Compare, Restore


@pytest.fixture
def unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """No augmentation, so that a slice can be told by its pixels."""
    monkeypatch.setattr(tasks, "WEAK", lambda slices: slices)
    monkeypatch.setattr(tasks, "STRONG", lambda slices: slices)


def numbered(count: int) -> Tensor:
    """Slices whose every pixel is their number."""
    return torch.arange(count).float().reshape(-1, 1, 1, 1).expand(-1, 1, 32, 32)


def numbers(slices: Tensor) -> list[int]:
    return slices[:, 0, 0, 0].int().tolist()


def restore(count: int, batch: int) -> Restore:
    return Restore(Restoration(Encoder(8), 0.1, 0.4), numbered(count), batch)


def classify(count: int, batch: int) -> Classify:
    return Classify(Classifier(Encoder(8), 3), numbered(count), torch.arange(count) % 3, batch)


def compare(objective: str, count: int, batch: int, patients: int = 6) -> Compare:
    rows = range(3 * patients)
    table = pd.DataFrame({"file": [f"{row}.mat" for row in rows], "patient": [f"P{row // 3}" for row in rows]})
    table["family"], table["label"] = table.patient, [row // 3 % 3 for row in rows]
    return Compare(Contrast(Encoder(8), objective, 0.2), numbered(len(table)), Pairs(table, "patient"), count, batch)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("count", "batch", "sizes"), [(40, 8, [8] * 5), (43, 8, [8] * 5), (5, 8, [5])])
def test_restore_sees_every_slice_at_most_once_an_epoch(count: int, batch: int, sizes: list[int]) -> None:
    task = restore(count, batch)
    batches = list(task.batches())
    assert task.steps == len(batches)
    assert [len(own) for own in batches] == sizes
    seen = [number for own in batches for number in numbers(own)]
    assert len(set(seen)) == len(seen)


@pytest.mark.usefixtures("unchanged")
def test_what_restore_leaves_out_changes_from_epoch_to_epoch() -> None:
    task = restore(10, 8)
    seen = [frozenset(numbers(next(iter(task.batches())))) for _ in range(10)]
    assert len(set(seen)) > 3
    assert frozenset.union(*seen) == set(range(10))


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("objective", "count", "batch", "sizes"),
    [("ntxent", 40, 8, [8] * 5), ("ntxent", 5, 8, [5]), ("margin", 40, 8, [8] * 10), ("margin", 5, 16, [10])],
)
def test_compare_gives_pairs_that_are_what_they_are_called(
    objective: str, count: int, batch: int, sizes: list[int]
) -> None:
    task = compare(objective, count, batch)
    batches = list(task.batches())
    assert task.steps == len(batches)
    assert [len(own) for own, *_ in batches] == sizes
    positive = negative = 0
    for first, second, equal, groups in batches:
        ours, theirs = (np.array(numbers(half)) // 3 for half in (first, second))
        assert torch.equal(equal, torch.from_numpy(ours == theirs))
        assert torch.equal(groups, torch.from_numpy(ours))
        positive, negative = positive + int(equal.sum()), negative + int((~equal).sum())
    assert positive == count
    assert negative == (count if objective == "margin" else 0)
    if objective == "margin" and len(batches) > 1:  # mixed, most of them
        assert sum(bool(equal.any() and not equal.all()) for _, _, equal, _ in batches) > 0.7 * len(batches)


def test_compare_changes_the_two_sides_of_a_pair_in_different_ways() -> None:
    task = compare("ntxent", 8, 8)
    task.slices = torch.rand(1, 1, 32, 32).expand(18, -1, -1, -1)
    ((first, second, _, _),) = task.batches()
    assert ((first - second).abs().amax(dim=(1, 2, 3)) > 0.01).all()


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("count", "batch"), [(12, 8), (123, 8), (200, 8), (133, 8), (3, 32)])
def test_classify_sees_every_labelled_slice_every_epoch(count: int, batch: int) -> None:
    task = classify(count, batch)
    batches = list(task.batches())
    assert task.steps == len(batches) >= 16
    assert {len(slices) for slices, _ in batches} == {batch}
    seen = [number for slices, _ in batches for number in numbers(slices)]
    times = np.bincount(seen, minlength=count)
    assert times.min() >= 1
    assert times.max() - times.min() <= 1
    assert all(torch.equal(labels, torch.tensor(numbers(slices)) % 3) for slices, labels in batches)


def test_classes_weigh_the_same_however_many_labels_they_have() -> None:
    task = classify(12, 12)
    task.labels = torch.tensor([0] * 8 + [1] * 3 + [2])
    logits = torch.zeros(12, 3, requires_grad=True)
    task.model.forward = lambda slices: logits
    task.loss((task.slices, task.labels)).backward()
    # At equal scores nothing is to be gained by calling everything the commonest class.
    torch.testing.assert_close(logits.grad.sum(dim=0), torch.zeros(3))
    pull = torch.stack([logits.grad[task.labels == label].abs().sum() for label in range(3)])
    torch.testing.assert_close(pull / pull[0], torch.ones(3))


def trained(task: Classify | Restore | Compare, folder: Path) -> set[str]:
    """Names of weights and buffers that two epochs change."""
    task.slices = torch.rand(task.slices.shape)
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    schedule = Schedule(2, task.steps, 0.01)
    train(task, schedule, folder / "unfinished", [], lambda epoch, metrics: None)
    after = task.model.state_dict()
    return {name for name in after if not torch.equal(after[name].cpu(), before[name])}


def test_every_weight_and_batch_statistic_is_trained(tmp_path: Path) -> None:
    for task in (classify(12, 4), restore(8, 4), compare("ntxent", 8, 4), compare("margin", 8, 4)):
        assert trained(task, tmp_path) == set(task.model.state_dict())
