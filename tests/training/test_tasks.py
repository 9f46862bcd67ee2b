from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from sslbt.errors import UserError
from sslbt.nn.encoder import Encoder
from sslbt.nn.heads import Classifier
from sslbt.pretext.losses import margin_loss, nt_xent
from sslbt.pretext.masking import Restoration
from sslbt.pretext.pairs import Contrast, Pairs
from sslbt.training import tasks
from sslbt.training.feed import Feed
from sslbt.training.loop import train
from sslbt.training.schedule import Schedule
from sslbt.training.tasks import Classify, Compare, Restore

SILENT = SimpleNamespace(begin=lambda *_: None, step=lambda *_: None, epoch=lambda _: None, end=lambda: None)
OUT_OF = 200  # slices in the set, of which a task learns from some


@pytest.fixture
def unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """No augmentation, so that a slice can be told by its pixels."""
    for name in ("WEAK", "STRONG"):
        monkeypatch.setattr(tasks, name, lambda slices, chance: slices)


def numbered() -> Feed:
    """Slices whose every pixel is their number."""
    pixels = torch.arange(OUT_OF, dtype=torch.uint8).reshape(-1, 1, 1).repeat(1, 32, 32)
    return Feed(pixels, np.array([f"{row}.mat" for row in range(OUT_OF)]), torch.device("cpu"))


def numbers(slices: Tensor) -> list[int]:
    return (slices[:, 0, 0, 0] * 255).round().int().tolist()


def some(count: int) -> np.ndarray:
    """Rows of the set, in no order: whoever takes a place for a row is found out."""
    return np.random.default_rng(5).permutation(OUT_OF)[:count]


def restore(count: int, batch: int) -> Restore:
    return Restore(Restoration(Encoder(8), 0.1, 0.4), numbered(), some(count), batch)


def classify(count: int, batch: int) -> Classify:
    rows = some(count)
    return Classify(Classifier(Encoder(8), 3), numbered(), rows, rows % 3, batch)


def compare(objective: str, count: int, batch: int, kind: str = "patient") -> Compare:
    rows = some(18)  # row r is of patient r // 10
    table = pd.DataFrame({"file": [f"{row}.mat" for row in rows], "patient": [f"P{row // 10}" for row in rows]})
    table["family"], table["label"] = table.patient, rows // 10 % 3
    return Compare(Contrast(Encoder(8), objective, 0.2), numbered(), rows, Pairs(table, kind), count, batch)


ALL = {
    "restore": lambda: restore(20, 8),
    "ntxent": lambda: compare("ntxent", 20, 8),
    "margin": lambda: compare("margin", 20, 8),
    "classify": lambda: classify(20, 8),
}


@pytest.mark.parametrize("name", ALL)
def test_a_plan_follows_from_the_generator_alone(name: str) -> None:
    plans = []
    for seed, state in ((1, 5), (1, 6), (2, 5)):
        torch.manual_seed(state)
        np.random.seed(state)  # noqa: NPY002
        task = ALL[name]()
        plans.append(task.plan(np.random.default_rng(seed)))
        assert plans[-1].shape[:2] == (task.steps, task.batch)
    assert np.array_equal(plans[0], plans[1])
    assert not np.array_equal(plans[0], plans[2])


@pytest.mark.parametrize("name", ALL)
def test_what_is_ready_follows_from_torch_s_seed_alone(name: str) -> None:
    task = ALL[name]()
    batch = task.plan(np.random.default_rng(0))[0]
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(task.ready(batch))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found[0], found[1], strict=True))
    assert not torch.equal(found[0][0], found[2][0])


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("name", ALL)
def test_files_are_exactly_the_slices_of_a_batch(name: str) -> None:
    task = ALL[name]()
    for batch in task.plan(np.random.default_rng(0)):
        ready = task.ready(batch)
        shown = numbers(torch.cat(ready[:2])) if isinstance(task, Compare) else numbers(ready[0])
        assert sorted(task.files(batch)) == sorted(f"{number}.mat" for number in shown)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("count", "batch", "sizes"), [(40, 8, [8] * 5), (43, 8, [8] * 5), (5, 8, [5])])
def test_restore_shows_every_slice_at_most_once_an_epoch(count: int, batch: int, sizes: list[int]) -> None:
    task = restore(count, batch)
    plan = task.plan(np.random.default_rng(0))
    ready = [task.ready(rows) for rows in plan]
    assert [len(slices) for slices, _ in ready] == sizes
    assert task.steps == len(sizes)
    seen = [number for slices, _ in ready for number in numbers(slices)]
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(some(count).tolist())


def test_what_restore_leaves_out_changes_from_epoch_to_epoch() -> None:
    task = restore(10, 8)
    seen = [frozenset(task.plan(np.random.default_rng(epoch)).ravel().tolist()) for epoch in range(10)]
    assert len(set(seen)) > 3
    assert frozenset.union(*seen) == set(some(10).tolist())


def test_restore_hides_a_new_region_in_each_slice_and_is_judged_there_only() -> None:
    task = restore(8, 8)
    task.feed.pixels.random_(0, 256)
    slices, hidden = task.ready(task.plan(np.random.default_rng(0))[0])
    assert hidden.shape == slices.shape == (8, 1, 32, 32)
    assert len({region.numpy().tobytes() for region in hidden}) == 8
    assert (hidden.float().mean(dim=(1, 2, 3)) - 0.25).abs().max() < 0.2  # of the share the model was made for
    loss = task.loss(slices, hidden)
    restored = task.model.train()(slices, hidden).restored
    errors = [(restored[i] - slices[i])[hidden[i]].square().mean().item() for i in range(8)]
    assert loss.item() == pytest.approx(np.mean(errors), rel=1e-4)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("objective", "count", "batch", "sizes"),
    [("ntxent", 40, 8, [8] * 5), ("ntxent", 5, 8, [5]), ("margin", 40, 8, [8] * 10), ("margin", 5, 16, [10])],
)
def test_compare_gives_pairs_that_are_what_they_are_called(
    objective: str, count: int, batch: int, sizes: list[int]
) -> None:
    task = compare(objective, count, batch)
    ready = [task.ready(pairs) for pairs in task.plan(np.random.default_rng(0))]
    assert task.steps == len(ready)
    assert [len(own) for own, *_ in ready] == sizes
    positive = negative = 0
    for first, second, equal, groups in ready:
        ours, theirs = (np.array(numbers(half)) // 10 for half in (first, second))
        assert np.array_equal(equal.numpy(), ours == theirs)
        assert np.array_equal(groups[:, None] == groups, ours[:, None] == ours)
        assert equal.dtype == torch.bool
        positive, negative = positive + int(equal.sum()), negative + int((~equal).sum())
    assert positive == count
    assert negative == (count if objective == "margin" else 0)
    if objective == "margin" and len(ready) > 1:  # mixed, most of them
        assert sum(bool(equal.any() and not equal.all()) for _, _, equal, _ in ready) > 0.7 * len(ready)


def test_compare_changes_the_two_sides_of_a_pair_in_different_ways() -> None:
    task = compare("ntxent", 8, 8, "views")
    task.feed.pixels.copy_(torch.randint(256, (1, 32, 32)).expand(OUT_OF, -1, -1))
    first, second, _, _ = task.ready(task.plan(np.random.default_rng(0))[0])
    assert ((first - second).abs().amax(dim=(1, 2, 3)) > 0.01).all()


@pytest.mark.parametrize("objective", ["ntxent", "margin"])
def test_the_loss_of_compare_is_that_of_its_projections(objective: str) -> None:
    task = compare(objective, 8, 8)
    task.feed.pixels.random_(0, 256)
    first, second, equal, groups = task.ready(task.plan(np.random.default_rng(0))[0])
    model = task.model.eval()
    with torch.no_grad():
        ours, theirs = (model.projection(model.encoder.pooled(half)) for half in (first, second))
        wanted = nt_xent(ours, theirs, groups, 0.2) if objective == "ntxent" else margin_loss(ours, theirs, equal)
        torch.testing.assert_close(task.loss(first, second, equal, groups), wanted)
        with torch.autocast("cpu", torch.bfloat16):
            assert task.loss(first, second, equal, groups).dtype == torch.float32


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("count", "batch"), [(12, 8), (123, 8), (200, 8), (133, 8), (3, 32)])
def test_classify_shows_every_labelled_slice_every_epoch(count: int, batch: int) -> None:
    task = classify(count, batch)
    ready = [task.ready(places) for places in task.plan(np.random.default_rng(0))]
    assert task.steps == len(ready) >= 16
    assert {len(slices) for slices, *_ in ready} == {task.batch}
    seen = [number for slices, *_ in ready for number in numbers(slices)]
    times = np.array([seen.count(row) for row in some(count)])
    assert len(seen) == times.sum()
    assert times.min() >= 1
    assert times.max() - times.min() <= 1
    assert all(labels.tolist() == [number % 3 for number in numbers(slices)] for slices, labels, _ in ready)


@pytest.mark.parametrize(
    ("count", "batch", "size"), [(40, 32, 32), (20, 32, 20), (12, 32, 12), (5, 32, 12), (5, 8, 8), (40, 8, 8)]
)
def test_a_batch_of_classify_is_no_larger_than_what_there_is_or_twelve(count: int, batch: int, size: int) -> None:
    assert classify(count, batch).plan(np.random.default_rng(0)).shape == (16, size)


def test_weights_average_one_in_every_batch_and_fall_as_a_class_grows_common() -> None:
    task = classify(12, 8)
    task.labels = np.array([0] * 8 + [1] * 3 + [2])
    task.__post_init__()
    for places in task.plan(np.random.default_rng(0)):
        _, labels, weight = task.ready(places)
        assert weight.mean().item() == pytest.approx(1)
        for label, other in {(a, b) for a in labels.tolist() for b in labels.tolist()}:
            ratio = weight[labels == label][0] / weight[labels == other][0]
            assert ratio.item() == pytest.approx([8, 3, 1][other] / [8, 3, 1][label])


def test_classes_weigh_the_same_however_many_labels_they_have() -> None:
    task = classify(12, 12)
    task.labels = np.array([0] * 8 + [1] * 3 + [2])
    task.__post_init__()
    _, labels, weight = task.ready(np.arange(12))
    logits = torch.zeros(12, 3, requires_grad=True)
    task.model.forward = lambda slices: logits
    task.loss(torch.zeros(12), labels, weight).backward()
    # At equal scores nothing is to be gained by calling everything the commonest class.
    torch.testing.assert_close(logits.grad.sum(dim=0), torch.zeros(3))
    pull = torch.stack([logits.grad[labels == label].abs().sum() for label in range(3)])
    torch.testing.assert_close(pull / pull[0], torch.ones(3))


@pytest.mark.parametrize("name", ALL)
def test_every_weight_and_batch_statistic_is_trained(name: str, tmp_path: Path) -> None:
    task = ALL[name]()
    task.feed.pixels.random_(0, 256)
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    train(task, Schedule(2, task.steps, 0.01), tmp_path, [], SILENT)
    after = task.model.state_dict()
    assert {name for name in after if torch.equal(after[name].cpu(), before[name])} == set()


def test_a_batch_that_processes_cannot_share_equally_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sslbt.parallel.size", lambda: 3)
    with pytest.raises(UserError, match="batch=8: 3 processes can't share it; give a multiple of 3"):
        restore(20, 8)
    with pytest.raises(UserError, match=r"batch=9: 3 processes can't share it; .* more data"):
        restore(2, 9)
    assert restore(5, 9).batch == 3  # all there are, in equal shares
