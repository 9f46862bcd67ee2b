import numpy as np
import pytest
import torch
from torch import Tensor

from sslbt.evaluation.altered import background_only, head, without_as_much, without_tumour

SIDE = 128
ROW, COLUMN = np.mgrid[:SIDE, :SIDE]


def disc(row: int, column: int, radius: float) -> np.ndarray:
    return np.hypot(ROW - row, COLUMN - column) <= radius


def slices(*pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack(pictures)[:, None]).float()


HEAD = disc(64, 64, 50)
TUMOUR = disc(50, 45, 7)
PICTURE = np.where(TUMOUR, 0.9, np.where(HEAD, 0.4 + 0.001 * COLUMN, 0))


def test_the_tumour_gives_way_to_its_surroundings() -> None:
    filled = without_tumour(slices(PICTURE), TUMOUR[None])[0, 0].numpy()
    assert filled[HEAD] == pytest.approx((0.4 + 0.001 * COLUMN)[HEAD], abs=0.01)  # a slope solves Laplace's equation
    beyond = ~disc(50, 45, 7 + SIDE / 40 + 1)
    assert np.array_equal(filled[beyond], PICTURE.astype(np.float32)[beyond])


def test_its_rim_goes_too() -> None:
    rim = disc(50, 45, 9) & ~TUMOUR
    filled = without_tumour(slices(np.where(rim, 1, PICTURE)), TUMOUR[None])
    assert filled.max() < 0.6


def test_the_filling_has_the_grain_of_the_surroundings() -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, PICTURE.shape)
    filled = without_tumour(slices((PICTURE + noise).clip(0, 1)), TUMOUR[None])[0, 0].numpy()
    around = disc(50, 45, 20) & ~disc(50, 45, 12)
    assert filled[TUMOUR].std() == pytest.approx(filled[around].std(), rel=0.3)


def test_bone_beside_the_tumour_does_not_shine_into_it() -> None:
    bone = (ROW < 50) & HEAD & ~TUMOUR & (COLUMN < 40)
    filled = without_tumour(slices(np.where(bone, 1, PICTURE)), TUMOUR[None])[0, 0].numpy()
    assert filled[TUMOUR].max() < 0.6


def test_a_slice_without_tumour_stays() -> None:
    nothing = np.zeros((1, SIDE, SIDE), bool)
    assert torch.equal(without_tumour(slices(PICTURE), nothing), slices(PICTURE))
    assert torch.equal(without_as_much(slices(PICTURE), nothing, 0), slices(PICTURE))


def test_a_tumour_at_the_edge_of_the_picture_can_go() -> None:
    whole = np.full((SIDE, SIDE), 0.4)
    edge = disc(0, 3, 10)
    filled = without_tumour(slices(np.where(edge, 0.9, whole)), edge[None])
    assert filled.numpy() == pytest.approx(0.4, abs=1e-6)


def test_as_much_is_taken_elsewhere_in_the_head() -> None:
    noise = np.random.default_rng(0).uniform(0, 0.02, PICTURE.shape)  # so that every filled pixel can be told
    whole = slices(PICTURE + noise * HEAD)
    gone = (without_tumour(whole, TUMOUR[None]) != whole)[0, 0].numpy()
    places = set()
    for seed in range(20):
        filled = without_as_much(whole, TUMOUR[None], seed)
        assert torch.equal(filled, without_as_much(whole, TUMOUR[None], seed))
        elsewhere = (filled != whole)[0, 0].numpy()
        assert elsewhere.sum() == gone.sum()
        assert not (elsewhere & gone).any()
        assert HEAD[elsewhere].all()
        places.add(tuple(np.argwhere(elsewhere).mean(axis=0)))
    assert len(places) > 15


def test_a_tumour_that_leaves_no_room_is_moved_as_far_as_there_is() -> None:
    large = disc(64, 64, 40)
    filled = without_as_much(slices(np.where(large, 0.9, PICTURE)), large[None], 0)
    assert torch.isfinite(filled).all()
    assert filled.shape == (1, 1, SIDE, SIDE)


def test_the_head_is_one_region_with_what_it_encloses() -> None:
    throat = HEAD & (abs(COLUMN - 64) < 3) & (ROW > 64)  # dark and open to the air below
    speck = disc(5, 5, 2)
    found = head(np.where(throat | disc(50, 64, 8), 0, PICTURE) + speck * 0.5)
    assert (found != HEAD).mean() < 0.02
    assert not found[speck].any()


def test_only_the_air_is_left() -> None:
    air = np.random.default_rng(0).uniform(0, 0.05, PICTURE.shape)
    whole = slices(np.where(HEAD, PICTURE, air))
    left = background_only(whole)[0, 0].numpy()
    assert len(np.unique(left[HEAD])) == 1
    assert left.max() <= 0.05
    outside = ~disc(64, 64, 60)
    assert np.array_equal(left[outside], whole[0, 0].numpy()[outside])
