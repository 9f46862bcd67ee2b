"""Where the tumours are."""

from pathlib import Path

import numpy as np
import pytest
from makers import BY_NAME, lay, mat, noise

from sslbt.data.cache import prepare
from sslbt.data.normalise import shrink
from sslbt.data.source import Source


def test_masks_stay_with_their_slices_whatever_is_left_out(home: Path, good: Path) -> None:
    shapes = {"abscess/P3_1.mat": (40, 31), "cyst/P5_1.mat": (64, 64), "glioma/P6_1.mat": (300, 500)}
    masks = {}
    for seed, (name, shape) in enumerate(shapes.items(), 30):
        mask = np.zeros(shape, bool)
        mask[5 + seed % 3 :, 8 : 20 + seed % 3] = True
        lay(good, {name: mat(image=noise(seed, shape).astype(np.int16).T, tumorMask=mask.T.astype(np.uint8))})
        masks[name] = shrink(mask)
    lay(good, {"abscess/P0_1.png": b"", "cyst/P1_2.mat": mat(label=np.array([[7.0]]))})
    cache = prepare(Source(str(good), patient_pattern=BY_NAME, on_bad="skip"))
    assert len(cache.refused) == 2
    found = cache.masks(np.arange(len(cache.table)))
    assert (found.shape, found.dtype) == ((6, 256, 256), bool)
    for path, tumour, mask in zip(cache.table.path, cache.table.tumour, found, strict=True):
        if path in masks:
            np.testing.assert_array_equal(mask, masks[path])
            assert tumour == pytest.approx(mask.mean())
            assert tumour > 0
        else:
            assert np.isnan(tumour)
            assert not mask.any()
    np.testing.assert_array_equal(cache.masks(np.array([4, 0])), found[[4, 0]])
    assert cache.masks(np.array([], int)).shape == (0, 256, 256)


def test_a_slice_left_out_after_all_takes_its_mask_along(home: Path, tmp_path: Path) -> None:
    masks = np.zeros((4, 40, 31), bool)
    for number, mask in enumerate(masks):
        mask[10 + number : 20, 5:9] = True
        image = noise(0 if number == 1 else number).astype(np.int16)  # the second is a copy of the first
        lay(tmp_path / "in", {f"{number}.mat": mat(image=image.T, tumorMask=mask.T.astype(np.uint8))})
    cache = prepare(Source(str(tmp_path / "in"), on_bad="skip"))
    assert list(cache.table.file) == ["0.mat", "2.mat", "3.mat"]
    np.testing.assert_array_equal(cache.masks(np.arange(3)), [shrink(masks[n]) for n in (0, 2, 3)])


def test_an_empty_mask_is_none(home: Path, tmp_path: Path) -> None:
    lay(tmp_path / "in", {"1.mat": mat(tumorMask=np.zeros((31, 40), np.uint8))})
    cache = prepare(Source(str(tmp_path / "in")))
    assert np.isnan(cache.table.tumour[0])
    assert not cache.masks(np.arange(1)).any()


def test_a_changed_mask_is_read_again_and_leaves_the_digest(home: Path, tmp_path: Path) -> None:
    mask = np.zeros((31, 40), np.uint8)
    caches = []
    for size in (4, 6):
        mask[3 : 3 + size, 7:20] = 1
        lay(tmp_path / "in", {"1.mat": mat(tumorMask=mask)})
        caches.append(prepare(Source(str(tmp_path / "in"))))
    before, after = caches
    assert before.masks(np.arange(1)).sum() < after.masks(np.arange(1)).sum()
    assert before.digest == after.digest  # no training depends on it
