import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import uniform_filter

from sslbt.data import duplicates
from sslbt.data.duplicates import NEAR, similar_pairs
from sslbt.data.matlab import read_mat
from sslbt.data.normalise import normalise
from sslbt.data.phantom import make_sample

COLUMNS = ["first", "second", "likeness"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """A slice each of nine heads, as their files hold them."""
    folder = tmp_path_factory.mktemp("phantoms")
    make_sample(folder, patients=9)
    slices = [read_mat(path.read_bytes(), path.name) for path in sorted(folder.glob("[0-9]*.mat"))]
    return list({slice_.patient: slice_.pixels for slice_ in slices}.values())


@pytest.fixture(scope="module")
def heads(raw: list[np.ndarray]) -> np.ndarray:
    """The same as the cache holds them."""
    return np.stack(list(map(normalise, raw)))


def nobodys(pixels: np.ndarray) -> np.ndarray:
    """A family of its own for every slice."""
    return np.array([f"P{number}" for number in range(len(pixels))])


def pairs_of(found: pd.DataFrame) -> list[tuple[int, int]]:
    assert list(found.columns) == COLUMNS
    return sorted(zip(found["first"].tolist(), found["second"].tolist(), strict=True))


def as_jpeg(pixels: np.ndarray) -> np.ndarray:
    out = io.BytesIO()
    Image.fromarray((pixels // 16).astype(np.uint8)).save(out, "JPEG", quality=50)
    return np.array(Image.open(out))


def resized(pixels: np.ndarray, side: int) -> np.ndarray:
    picture = Image.fromarray(pixels.astype(np.float32))
    return np.array(picture.resize((side, side), Image.Resampling.BICUBIC))


def noisy(pixels: np.ndarray, share: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, share * np.ptp(pixels), pixels.shape)
    return pixels + noise


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "the same": lambda pixels: pixels,
    "JPEG": as_jpeg,
    "half size": lambda pixels: resized(pixels, 128),
    "half size and back": lambda pixels: resized(resized(pixels, 128), 256),
    "double size": lambda pixels: resized(pixels, 512),
    "darker": lambda pixels: (pixels / pixels.max()) ** 1.3,
    "brighter": lambda pixels: (np.maximum(pixels, 0) / pixels.max()) ** 0.8,
    "another scale": lambda pixels: 7 - 3.5 * pixels.max() + 0.01 * pixels,
    "noise": lambda pixels: noisy(pixels, 0.01),
    "mirrored": lambda pixels: pixels[:, ::-1],
    "mirrored, small, as JPEG": lambda pixels: as_jpeg(resized(pixels, 128)[:, ::-1].astype(np.int16)),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_of_another_family_is_found(kind: str, raw: list[np.ndarray], heads: np.ndarray) -> None:
    copies = np.stack([normalise(COPIES[kind](np.maximum(pixels, 0))) for pixels in raw])
    found = similar_pairs(np.concatenate([heads, copies]), nobodys([*heads, *copies]))
    assert pairs_of(found) == [(number, number + len(heads)) for number in range(len(heads))]
    lowest = {"the same": 0.9999, "mirrored": 0.999, "another scale": 0.999, "mirrored, small, as JPEG": NEAR}
    assert found.likeness.between(lowest.get(kind, 0.96), 1.0001).all()


def test_copies_in_one_family_are_not_listed(heads: np.ndarray) -> None:
    families = nobodys(heads)
    assert pairs_of(similar_pairs(np.concatenate([heads, heads]), np.concatenate([families, families]))) == []
    families[4] = families[0]
    three = np.concatenate([heads, heads[:1], heads[:1]])
    found = similar_pairs(three, np.array([*families, families[0], "another"]))
    assert pairs_of(found) == [(0, 10), (9, 10)]


def test_different_heads_are_not_alike(heads: np.ndarray) -> None:
    assert pairs_of(similar_pairs(heads, nobodys(heads))) == []


def test_upside_down_or_turned_is_another_picture(heads: np.ndarray) -> None:
    for other in (heads[:, ::-1], heads.swapaxes(1, 2)):
        assert pairs_of(similar_pairs(np.concatenate([heads, other]), nobodys([*heads, *heads]))) == []


@pytest.fixture(scope="module")
def mixed(heads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heads, and blends of two or with noise from hardly anything to all; families of one to four slices."""
    rng = np.random.default_rng(0)
    pixels = list(heads.astype(float))
    for share in (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5):
        for number in range(0, len(heads) - 1, 2):
            pixels.append((1 - share) * heads[number] + share * heads[number + 1])
            pixels.append(heads[number][:, ::-1] + rng.normal(0, 255 * share, heads[0].shape))
    families = np.array([f"P{i}" for i in rng.integers(0, len(pixels) // 2, len(pixels))])
    order = rng.permutation(len(pixels))
    return np.stack([normalise(pixels[i]) for i in order]), families


def likeness_by_hand(pixels: np.ndarray) -> np.ndarray:
    """Correlation of the details of each picture with each, mirrored or not, in plain numpy and scipy."""
    small = pixels.reshape(len(pixels), 64, 4, 64, 4).mean((2, 4))
    size = (0, 9, 9)
    around = uniform_filter(small, size, mode="constant") / uniform_filter(np.ones_like(small), size, mode="constant")
    details = small - around
    count = len(pixels)
    both = np.corrcoef(details.reshape(count, -1), details[:, :, ::-1].reshape(count, -1))
    return np.maximum(both[:count, :count], both[:count, count:])


def test_it_agrees_with_correlations_by_hand(mixed: tuple[np.ndarray, np.ndarray]) -> None:
    pixels, families = mixed
    found = similar_pairs(pixels, families)
    expected = likeness_by_hand(pixels)
    np.testing.assert_allclose(found.likeness, expected[found["first"], found["second"]], atol=2e-3)
    apart = np.triu(families[:, None] != families, 1)
    certain = set(zip(*np.nonzero(apart & (expected > NEAR + 2e-3)), strict=True))
    possible = set(zip(*np.nonzero(apart & (expected > NEAR - 2e-3)), strict=True))
    assert certain <= set(pairs_of(found)) <= possible
    assert len(pairs_of(found)) == len(set(pairs_of(found)))
    assert len(certain) > 20
    assert (apart & (expected < NEAR)).sum() > 10 * len(certain)


def test_pairs_come_most_alike_first_and_in_order(mixed: tuple[np.ndarray, np.ndarray]) -> None:
    found = similar_pairs(*mixed)
    assert found.likeness.is_monotonic_decreasing
    assert (found["first"] < found["second"]).all()


@pytest.mark.parametrize(("block", "few"), [(1, 1), (3, 2), (7, 64), (66, 5)])
def test_blocks_of_any_size_give_the_same(
    block: int, few: int, mixed: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = similar_pairs(*mixed)
    monkeypatch.setattr(duplicates, "BLOCK", block)
    monkeypatch.setattr(duplicates, "FEW", few)
    found = similar_pairs(*mixed)
    assert pairs_of(found) == pairs_of(expected)
    np.testing.assert_allclose(found.likeness, expected.likeness, atol=2e-4)


def test_more_pairs_than_anybody_looks_at_are_cut_off(heads: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MOST", 10)
    monkeypatch.setattr(duplicates, "BLOCK", 4)
    pixels = np.repeat(heads[:1], 30, 0)
    assert len(similar_pairs(pixels, nobodys(pixels))) == 10


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_slices_have_few_pairs(count: int, heads: np.ndarray) -> None:
    assert pairs_of(similar_pairs(heads[:count], nobodys(heads[:count]))) == []


def test_slices_on_disk_are_compared_alike(heads: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "pixels").write_bytes(heads.tobytes() + heads[:1].tobytes())
    pixels = np.memmap(tmp_path / "pixels", np.uint8, "r", shape=(10, 256, 256))
    assert pairs_of(similar_pairs(pixels, nobodys(pixels))) == [(0, 9)]


def test_pictures_without_details_are_like_none() -> None:
    grey = np.stack([np.full((256, 256), 9, np.uint8)] * 2 + [np.full((256, 256), 200, np.uint8)])
    assert pairs_of(similar_pairs(grey, nobodys(grey))) == []
