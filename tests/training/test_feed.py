from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sslbt.data.cache import Cache
from sslbt.training.feed import Feed

CPU = torch.device("cpu")
MAPS = Path("/proc/self/maps")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    pixels = np.random.default_rng(0).integers(0, 256, (70, 256, 256), dtype=np.uint8)
    table = pd.DataFrame({"file": [f"{row}.mat" for row in range(70)]})
    return Cache(pixels, table, *[pd.DataFrame()] * 2, "", True, (), folder=tmp_path / "cache")


def test_a_batch_holds_the_rows_asked_for_as_numbers_from_0_to_1(cache: Cache) -> None:
    feed = Feed.of(cache, 256, CPU)
    rows = np.array([69, 3, 3, 0])
    batch = feed(rows)
    assert batch.dtype == torch.float32
    assert np.array_equal(batch.numpy(), (cache.pixels[rows] / 255).astype(np.float32)[:, None])
    assert list(feed.files[rows]) == ["69.mat", "3.mat", "3.mat", "0.mat"]


def test_a_batch_at_another_size_is_what_loading_gives_to_the_nearest_grey(cache: Cache) -> None:
    rows = np.random.default_rng(1).permutation(70)[:9]
    batch = Feed.of(cache, 48, CPU)(rows)
    assert batch.shape == (9, 1, 48, 48)
    assert (batch - cache.load(rows, 48)).abs().max() <= 0.5 / 255 + 1e-6


def test_a_batch_is_nobody_else_s(cache: Cache) -> None:
    feed = Feed.of(cache, 48, CPU)
    batch = feed(np.arange(5))
    wanted = batch.clone()
    batch.zero_()
    assert torch.equal(feed(np.arange(5)), wanted)


@pytest.mark.skipif(not MAPS.exists(), reason="no list of what is mapped into memory")
def test_pixels_stay_in_a_file_mapped_into_memory(cache: Cache, tmp_path: Path) -> None:
    feed = Feed.of(cache, 48, CPU)
    feed(np.arange(70))
    mapped = [line.split()[-1] for line in MAPS.read_text().splitlines() if str(tmp_path) in line]
    (file,) = set(mapped)
    assert Path(file).stat().st_size == feed.pixels.numel() == 70 * 48 * 48
