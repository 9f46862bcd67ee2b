from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from sslbt.data.preprocess import Preprocess
from sslbt.evaluation import robustness
from sslbt.evaluation.robustness import CHANGES, bias_field, blur, changed, contrast, curve, noise, resolution, rotation

BY_CHANCE = {"noise", "bias field", "rotation"}


def picture(label: int, seed: int) -> Tensor:
    """As the cache holds it: a grey disc in the air with a bright spot, whose place tells the class, (1, 256, 256)."""
    row, column = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    grey = 0.4 * (torch.hypot(row - 128, column - 128) < 90) + 0.6 * (
        torch.hypot(row - 128, column - 80 - 48 * label) < 20
    )
    noisy = grey + 0.02 * torch.rand(256, 256, generator=torch.Generator().manual_seed(seed))
    return Preprocess()(noisy[None])[0]


SLICES = torch.stack([picture(i % 3, i) for i in range(4)])


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_strength_0_is_the_picture_itself() -> None:
    for name, change in CHANGES.items():
        assert change.strengths.count(0) == 1
        assert list(change.strengths) == sorted(change.strengths)
        assert torch.equal(changed(SLICES, name, 0), SLICES)
    assert Preprocess()(SLICES[:, 0]).numpy() == pytest.approx(SLICES.numpy(), abs=1e-6)  # what the others go through


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_follows_from_the_slice_and_the_seed(name: str) -> None:
    strength = CHANGES[name].strengths[-1]
    whole = changed(SLICES, name, strength, seed=1)
    assert whole.shape == SLICES.shape
    assert torch.equal(whole, changed(SLICES, name, strength, seed=1))
    assert torch.equal(whole[[2, 0]], changed(SLICES[[2, 0]], name, strength, seed=1))
    seeds = [changed(SLICES, name, strength, seed) for seed in range(6)]
    assert all(torch.equal(seeds[0], other) for other in seeds) == (name not in BY_CHANCE)


@pytest.mark.parametrize("name", CHANGES)
def test_stronger_is_further_from_the_picture_and_still_normalised(name: str) -> None:
    upwards = [strength for strength in CHANGES[name].strengths if strength >= 0]
    far = [float((changed(SLICES, name, strength) - SLICES).abs().mean()) for strength in upwards]
    assert far == sorted(far)
    strongest = changed(SLICES, name, upwards[-1])
    assert (strongest.amin(dim=(1, 2, 3)) == 0).all()
    assert (strongest.amax(dim=(1, 2, 3)) == 1).all()


def test_noise_is_rayleigh_in_air_and_normal_in_tissue() -> None:
    air, tissue = noise(torch.zeros(1, 1, 256, 256), 0.1, chance()), noise(torch.ones(1, 1, 256, 256), 0.1, chance())
    assert float(air.mean()) == pytest.approx(0.1 * np.sqrt(np.pi / 2), rel=0.01)
    assert float(tissue.std()) == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("sigma", [1, 2.5])
def test_blur_is_scipys(sigma: float) -> None:
    expected = ndimage.gaussian_filter(SLICES[0, 0].numpy(), sigma, mode="nearest", truncate=4)
    assert blur(SLICES[:1], sigma, chance())[0, 0].numpy() == pytest.approx(expected, abs=1e-5)


def test_the_bias_field_reaches_its_amplitude_and_is_smooth() -> None:
    field = bias_field(torch.ones(1, 1, 256, 256), 0.4, chance())
    assert float(field.amin()) == pytest.approx(0.6)
    assert float(field.amax()) == pytest.approx(1.4)
    assert field.diff(dim=3).abs().max() < 0.02


def test_contrast_is_gamma_both_ways() -> None:
    grey = torch.full((1, 1, 4, 4), 0.25)
    assert contrast(grey, 1, chance()).numpy() == pytest.approx(0.0625)
    assert contrast(grey, -1, chance()).numpy() == pytest.approx(0.5)


def test_resolution_loses_what_is_finer_than_its_pixels() -> None:
    stripes = (torch.arange(256) // 2 % 2).float().expand(1, 1, 256, 256)
    assert resolution(stripes, 3, chance())[..., 16:-16].numpy() == pytest.approx(0.5, abs=0.05)
    half = (torch.arange(256) // 128).float().expand(1, 1, 256, 256)
    assert (resolution(half, 1, chance()) - half).abs().mean() < 0.01


def test_rotation_is_scipys_one_way_or_the_other() -> None:
    found = {
        sign
        for seed in range(8)
        for sign in (-1, 1)
        if np.abs(
            rotation(SLICES[:1], 20, chance(seed))[0, 0].numpy()
            - ndimage.rotate(SLICES[0, 0].numpy(), 20 * sign, reshape=False, order=1)
        ).mean()
        < 1e-3
    }
    assert found == {-1, 1}


def by_spot(asked: list[int]) -> Callable[[Tensor], np.ndarray]:
    """A classifier that looks where the bright spots of the three classes are."""

    def predict(slices: Tensor) -> np.ndarray:
        asked.append(len(slices))
        spots = torch.stack([slices[:, 0, 126:130, 78 + 48 * i : 82 + 48 * i].mean(dim=(1, 2)) for i in range(3)], 1)
        return (spots / spots.sum(1, keepdim=True)).numpy()

    return predict


def test_the_curve_asks_each_change_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robustness, "BATCH", 8)
    monkeypatch.setattr(robustness, "MOST", 12)
    labels = np.arange(15) % 3
    slices = torch.stack([picture(int(label), seed) for seed, label in enumerate(labels)])
    asked: list[int] = []
    families = np.arange(15).astype(str)
    table = curve(by_spot(asked), slices, labels, families, families)
    strengths = [(name, strength) for name, change in CHANGES.items() for strength in change.strengths]
    assert list(zip(table.change, table.strength, strict=True)) == strengths
    assert asked == [8, 4] * (len(strengths) - len(CHANGES) + 1)
    assert (table.balanced_accuracy[table.strength == 0] == 1).all()
    assert (table.balanced_accuracy_ci_low <= table.balanced_accuracy).all()
    assert (table.balanced_accuracy_ci_high >= table.balanced_accuracy).all()
    turned = table[(table.change == "rotation") & (table.strength == 30)]
    assert float(turned.balanced_accuracy.iloc[0]) < 1  # the spots left and right have left their places
