import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from sslbt.evaluation import exposure
from sslbt.evaluation.exposure import MAKERS, Make, another_scan, no_brain, normalised


def chance(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def slices() -> Tensor:
    """Smooth pictures, dark at the rim, all different."""
    knots = torch.rand(24, 1, 10, 10, generator=chance(9))
    smooth = F.interpolate(F.pad(knots, (3, 3, 3, 3)), (64, 64), mode="bilinear")
    return normalised(smooth)


def alike(first: Tensor, second: Tensor) -> Tensor:
    """Correlation of each picture with its own."""
    first, second = (F.normalize(each.flatten(1) - each.flatten(1).mean(1, keepdim=True)) for each in (first, second))
    return (first * second).sum(1)


@pytest.mark.parametrize("make", [*dict.fromkeys(MAKERS), another_scan, no_brain], ids=lambda make: make.__name__)
def test_as_many_finite_pictures_of_the_same_size_by_chance_alone(make: Make, slices: Tensor) -> None:
    made = make(slices, chance())
    assert made.shape == slices.shape
    assert made.isfinite().all()
    assert made.flatten(1).std(1).min() > 0
    assert torch.equal(made, make(slices, chance()))


def test_one_per_cent_is_black_and_one_is_white() -> None:
    picture = normalised(torch.arange(4096.0).view(1, 1, 64, 64) * 3 - 500)
    assert int((picture == 0).sum()) == 40
    assert int((picture == 1).sum()) == 40
    assert picture.flatten().diff().min() >= 0


def test_upside_down_is_flipped_or_turned(slices: Tensor) -> None:
    made = exposure.upside_down(slices, chance())
    flipped = [torch.equal(one, before.flip(-2)) for one, before in zip(made, slices, strict=True)]
    turned = [torch.equal(one, before.rot90(2, (-2, -1))) for one, before in zip(made, slices, strict=True)]
    assert np.logical_xor(flipped, turned).all()
    assert 0 < sum(flipped) < len(slices)


def test_shuffling_keeps_every_pixel(slices: Tensor) -> None:
    made = exposure.shuffled(slices, chance())
    assert torch.equal(made.flatten(1).sort().values, slices.flatten(1).sort().values)
    assert alike(made, slices).median() < 0.9


def test_recolouring_gives_equal_greys_equal_greys(slices: Tensor) -> None:
    steps = (slices * 20).round() / 20
    for before, after in zip(steps, exposure.recoloured(steps, chance()), strict=True):
        for grey in before.unique():
            assert float(after[before == grey].max() - after[before == grey].min()) < 1e-5


def test_another_scan_shows_the_same_and_a_stranger_does_not() -> None:
    knots = torch.rand(60, 1, 4, 4, generator=chance(9))
    slices = normalised(F.interpolate(knots, (64, 64), mode="bicubic"))
    scanned, strange = another_scan(slices, chance()), no_brain(slices, chance())
    assert torch.maximum(alike(scanned, slices), alike(scanned, slices.flip(-1))).median() > 0.6
    assert alike(strange, slices).median() < 0.2


def test_clouds_fall_with_the_frequency() -> None:
    made = exposure.clouds(torch.zeros(200, 1, 64, 64), chance())
    power = torch.fft.rfft2(made - made.mean((2, 3), keepdim=True)).abs().square()[:, 0]
    slope = (power[:, 1:4, 1:4].mean((1, 2)) / power[:, 20:30, 20:30].mean((1, 2))).log10()
    assert slope.min() < 0.6  # next to white
    assert slope.max() > 2.5  # next to clouds
