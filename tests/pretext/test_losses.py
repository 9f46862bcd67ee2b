import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslbt.pretext.losses import margin_loss, nt_xent


def draw(pairs: int, channels: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    both = F.normalize(torch.randn(2, pairs, channels, generator=generator, dtype=torch.float64), dim=2)
    return both[0], both[1]


def nt_xent_by_loops(first: Tensor, second: Tensor, groups: list[int], temperature: float) -> float:
    """Chen et al. 2020, eq. 1 as it is printed; rows of the same group are no negatives."""
    rows = [*first.tolist(), *second.tolist()]
    pairs = len(rows) // 2

    def likeness(i: int, k: int) -> float:
        return math.exp(sum(a * b for a, b in zip(rows[i], rows[k], strict=True)) / temperature)

    total = 0.0
    for i in range(2 * pairs):
        twin = (i + pairs) % (2 * pairs)
        others = [k for k in range(2 * pairs) if groups[k % pairs] != groups[i % pairs]]
        total -= math.log(likeness(i, twin) / (likeness(i, twin) + sum(likeness(i, k) for k in others)))
    return total / (2 * pairs)


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("groups", [[0, 1, 2, 3, 4], [0, 1, 0, 2, 1], [7, 7, 7, 7, 1]])
def test_nt_xent_equals_the_printed_formula(groups: list[int], temperature: float) -> None:
    first, second = draw(5)
    ours = nt_xent(first, second, torch.tensor(groups), temperature)
    assert ours.item() == pytest.approx(nt_xent_by_loops(first, second, groups, temperature), rel=1e-9)


def test_nt_xent_of_two_pairs_by_hand() -> None:
    # Pairs at right angles to each other: each row has its twin at similarity 1 and two negatives at 0.
    first = second = torch.eye(2)
    assert nt_xent(first, second, torch.arange(2), 1.0).item() == pytest.approx(math.log(math.e + 2) - 1)
    assert nt_xent(first, second, torch.arange(2), 0.5).item() == pytest.approx(math.log(math.e**2 + 2) - 2)
    assert nt_xent(first, second, torch.zeros(2), 1.0).item() == 0  # of one group: nothing to tell apart


def test_nt_xent_does_not_push_a_group_apart() -> None:
    first, second = draw(4)
    first.requires_grad_()
    loss = nt_xent(first, second, torch.zeros(4), 0.2)
    loss.backward()
    assert loss == 0
    assert not first.grad.any()


def test_nt_xent_falls_as_positives_come_closer() -> None:
    first, second = draw(6)
    groups = torch.arange(6)
    steps = [F.normalize(second + share * (first - second), dim=1) for share in (0, 0.5, 0.9, 1)]
    losses = [nt_xent(first, closer, groups, 0.5).item() for closer in steps]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.1


def test_margin_loss_by_hand() -> None:
    first = torch.tensor([[1.0, 0], [1, 0], [1, 0], [1, 0]])
    angle = math.radians(20)
    near = [math.cos(angle), math.sin(angle)]  # distance 2 sin 10°
    second = torch.tensor([near, near, [0, 1.0], [0, 1.0]])
    equal = torch.tensor([True, False, True, False])
    distance = 2 * math.sin(angle / 2)
    by_hand = [distance**2, (1 - distance) ** 2, 2, 0]  # at right angles: distance √2, beyond the margin
    assert margin_loss(first, second, equal).item() == pytest.approx(sum(by_hand) / 4 / 2, rel=1e-5)
    wider = [distance**2, (1.5 - distance) ** 2, 2, (1.5 - math.sqrt(2)) ** 2]
    assert margin_loss(first, second, equal, margin=1.5).item() == pytest.approx(sum(wider) / 4 / 2, rel=1e-5)


def test_margin_loss_is_the_right_way_up() -> None:
    first, far = torch.tensor([[1.0, 0]]), torch.tensor([[-1.0, 0]])
    yes, no = torch.tensor([True]), torch.tensor([False])
    assert margin_loss(first, first, yes) < margin_loss(first, far, yes)
    assert margin_loss(first, first, no) > margin_loss(first, far, no) == 0


@pytest.mark.parametrize("equal", [True, False])
def test_the_gradient_is_finite_where_a_pair_coincides(equal: bool) -> None:
    first = torch.tensor([[0.6, 0.8]], requires_grad=True)
    margin_loss(first, first.detach().clone(), torch.tensor([equal])).backward()
    assert first.grad.isfinite().all()
