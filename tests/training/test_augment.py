import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import kstest

from sslbt.training.augment import STRONG, WEAK, Augmentation, draw

OFF = Augmentation(crop=1, rotation=0, flip=0, gamma=0, bias=0, noise=0)


def smooth(count: int, size: int = 48) -> torch.Tensor:
    return F.interpolate(torch.rand(count, 1, 6, 6), (size, size), mode="bicubic").clamp(0, 1)


def changed_by(augmentation: Augmentation, slices: torch.Tensor) -> torch.Tensor:
    return augmentation(slices, draw(len(slices)))


@pytest.mark.parametrize("augmentation", [WEAK, STRONG, OFF], ids=["weak", "strong", "off"])
@pytest.mark.parametrize("shape", [(1, 1, 32, 32), (5, 1, 96, 96)])
def test_shape_type_and_range_stay(augmentation: Augmentation, shape: tuple[int, ...]) -> None:
    slices = (torch.rand(shape) > 0.5).float()
    before = slices.clone()
    changed = changed_by(augmentation, slices)
    assert changed.shape == slices.shape
    assert changed.dtype == slices.dtype
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert torch.equal(slices, before)  # the set is not changed in place


def test_everything_switched_off_changes_nothing() -> None:
    slices = torch.rand(4, 1, 32, 32)
    torch.testing.assert_close(changed_by(OFF, slices), slices, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["crop", "rotation", "flip", "gamma", "bias", "noise"])
def test_each_switch_alone_changes_something(name: str) -> None:
    slices = smooth(16)
    one = replace(OFF, **{name: getattr(STRONG, name)})
    assert (changed_by(one, slices) - slices).abs().amax() > 0.02


def test_nothing_but_chance_decides() -> None:
    slices, chance = smooth(4), draw(4)
    before = chance.clone()
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        results.append(STRONG(slices, chance))
        assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(seed))  # none of torch's is used
    assert torch.equal(results[0], results[1])
    assert torch.equal(chance, before)
    assert not torch.equal(STRONG(slices, draw(4)), results[0])


def test_chance_is_uniform_and_follows_from_the_seed() -> None:
    drawn = draw(2000)
    assert kstest(drawn.flatten().numpy(), "uniform").pvalue > 0.001
    torch.manual_seed(7)
    first = draw(3)
    torch.manual_seed(7)
    assert torch.equal(draw(3), first)
    assert not torch.equal(draw(3), first)


@pytest.mark.parametrize("augmentation", [WEAK, STRONG], ids=["weak", "strong"])
def test_a_slice_is_changed_the_same_in_whatever_batch_or_share_it_is(augmentation: Augmentation) -> None:
    slices, chance = smooth(8), draw(8)
    whole = augmentation(slices, chance)
    shares = torch.cat([augmentation(slices[own], chance[own]) for own in (slice(0, 4), slice(4, 8))])
    alone = torch.cat([augmentation(slices[i : i + 1], chance[i : i + 1]) for i in range(8)])
    order = torch.tensor([3, 7, 0, 1, 2, 6, 5, 4])
    assert torch.equal(shares, whole)
    assert torch.equal(alone, whole)
    assert torch.equal(augmentation(slices[order], chance[order]), whole[order])


def test_each_slice_changes_in_its_own_way() -> None:
    same = smooth(1).expand(6, -1, -1, -1)
    for one in (STRONG, *(replace(OFF, **{name: 0.4}) for name in ("crop", "gamma", "bias", "noise"))):
        changed = changed_by(one, same)
        apart = [(changed[a] - changed[b]).abs().max() for a in range(6) for b in range(a)]
        assert min(apart) > 1e-5


def test_flip_mirrors_left_and_right() -> None:
    slices = torch.rand(4, 1, 32, 32)
    torch.testing.assert_close(changed_by(replace(OFF, flip=1), slices), slices.flip(3), atol=1e-5, rtol=0)
    half = changed_by(replace(OFF, flip=0.5), slices[:1].expand(400, -1, -1, -1))
    mirrored = (half - slices[0].flip(2)).abs().amax(dim=(1, 2, 3)) < 1e-3
    straight = (half - slices[0]).abs().amax(dim=(1, 2, 3)) < 1e-3
    assert (mirrored ^ straight).all()
    assert 150 < mirrored.sum() < 250


def test_nothing_is_turned_upside_down() -> None:
    slices = torch.zeros(300, 1, 32, 32)
    slices[:, :, :16] = 0.8
    changed = changed_by(STRONG, slices)
    assert (changed[:, :, :8].mean(dim=(1, 2, 3)) > changed[:, :, 24:].mean(dim=(1, 2, 3)) + 0.2).all()


def test_crops_stay_inside_and_enlarge_to_at_most_the_share_asked_for() -> None:
    cropping = replace(OFF, crop=0.5)
    inside = slice(1, -1)  # half of an outermost pixel lies outside the picture
    assert changed_by(cropping, torch.ones(200, 1, 32, 32))[:, :, inside, inside].min() > 0.9999
    across, down = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 64), indexing="xy")
    sides = []
    for ramp in (across, down):
        torch.manual_seed(5)
        changed = changed_by(cropping, ramp.expand(400, 1, -1, -1))[:, :, inside, inside]
        sides.append((changed.amax(dim=(1, 2, 3)) - changed.amin(dim=(1, 2, 3))) * 63 / 61)
    torch.testing.assert_close(sides[0], sides[1], atol=0.01, rtol=0)  # no distortion
    area = sides[0] * sides[1]
    assert area.min() > 0.49
    assert area.mean() == pytest.approx(0.75, abs=0.03)


def test_rotation_turns_about_the_centre_by_at_most_so_many_degrees() -> None:
    slices = torch.zeros(300, 1, 65, 65)
    slices[:, :, 30:35, 60:63] = 1  # right of the centre, 29 pixels away
    changed = changed_by(replace(OFF, rotation=20), slices)
    position = torch.arange(65) - 32.0
    mass = changed.sum(dim=(1, 2, 3))
    x = (changed[:, 0] * position).sum(dim=(1, 2)) / mass
    y = (changed[:, 0] * position[:, None]).sum(dim=(1, 2)) / mass
    angles = torch.rad2deg(torch.atan2(y, x))
    assert torch.hypot(x, y).sub(29).abs().max() < 1
    assert 18 < angles.max() < 20.5
    assert -20.5 < angles.min() < -18


def test_contrast_keeps_the_order_of_greys_and_stays_between_its_powers() -> None:
    slices = torch.linspace(0, 1, 64).expand(200, 1, 64, -1)
    changed = changed_by(replace(OFF, gamma=1), slices)
    assert (changed.diff(dim=3) > -1e-4).all()
    middle = changed[:, 0, 0, 32]
    grey = slices[0, 0, 0, 32].item()
    assert grey**2 - 0.02 < middle.min() < grey**1.8
    assert grey**0.6 < middle.max() < math.sqrt(grey) + 0.02


def test_the_bias_field_is_smooth_and_around_one() -> None:
    field = changed_by(replace(OFF, bias=0.2), torch.full((200, 1, 64, 64), 0.5)) / 0.5
    assert field.mean() == pytest.approx(1, abs=0.02)
    assert (field - 1).abs().max() < 0.2 * 1.5
    assert field.diff(dim=2).abs().max() < 0.05
    assert field.std(dim=0).min() > 0.02


def test_noise_is_of_mean_zero_and_as_strong_as_its_slice_s_chance_says() -> None:
    slices, chance = torch.full((300, 1, 64, 64), 0.5), draw(300)
    noise = replace(OFF, noise=0.05)(slices, chance) - 0.5
    spread = noise.std(dim=(1, 2, 3))
    torch.testing.assert_close(spread, 0.05 * chance[:, 4], rtol=0.06, atol=1e-4)
    assert (noise.mean(dim=(1, 2, 3)).abs() < 5 * spread / 64 + 1e-4).all()
    assert kstest((noise[0] / spread[0]).flatten().numpy(), "norm").pvalue > 0.001


def test_noise_differs_between_slices_and_has_no_pattern() -> None:
    noise = changed_by(replace(OFF, noise=0.05), torch.full((40, 1, 64, 64), 0.5)) - 0.5
    together = torch.corrcoef(noise.flatten(1)).fill_diagonal_(0)
    assert together.abs().max() < 6 / 64
    for shift in ((0, 1), (1, 0)):
        neighbour = noise.roll(shift, (2, 3))
        assert abs(torch.corrcoef(torch.stack([noise.flatten(), neighbour.flatten()]))[0, 1]) < 0.02


def test_the_ends_of_chance_are_within_reach() -> None:
    least, most = torch.zeros(1, draw(1).shape[1]), torch.full((1, draw(1).shape[1]), 1 - 2**-24)
    for size in (32, 96, 256):
        for chance in (least, most):
            assert STRONG(torch.rand(1, 1, size, size), chance).isfinite().all()


def test_weak_is_weaker_than_strong() -> None:
    slices = smooth(200)
    apart = [
        (changed_by(replace(augmentation, flip=0), slices) - slices).abs().mean() for augmentation in (WEAK, STRONG)
    ]
    assert apart[0] < 0.8 * apart[1]
