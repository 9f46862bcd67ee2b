"""Planes by the shipped weights: of phantoms, whose planes are known, and the rule behind them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sslbt.data.phantom import PLANES, draw, make_person, make_scanner
from sslbt.data.plane import decide, describe, estimate_planes
from sslbt.data.reading import normalise

LABELS = Path(__file__).with_name("planes.csv")


@pytest.fixture(scope="module")
def heads():
    """Phantoms of 20 people in three planes, (60, 256, 256), as the cache would hold them."""
    pictures = []
    for seed in range(20):
        person, scanner = (make(np.random.default_rng([seed, i])) for i, make in enumerate((someone, make_scanner)))
        for plane in PLANES:
            pixels, _ = draw(person, scanner, plane, 0.0, 128, np.random.default_rng(seed))
            pictures.append(normalise(pixels))
    return np.stack(pictures)


def someone(generator):
    return make_person(int(generator.integers(1, 4)), generator)


def test_axial_and_coronal_phantoms_get_their_plane_though_it_was_learnt_from_people(heads):
    found = estimate_planes(heads).reshape(20, 3)
    assert (found[:, :2] == PLANES[:2]).mean() > 0.9
    assert "sagittal" in found[:, 2]  # of phantoms it knows a few only: their faces are too plain


def test_mirror_image_and_contrast_change_nothing(heads):
    whole = estimate_planes(heads)
    assert (estimate_planes(heads[:, :, ::-1]) == whole).all()
    assert (estimate_planes((heads // 2 + 20).astype(np.uint8)) == whole).mean() > 0.95


def test_a_mirrored_edge_is_counted_alike_and_an_uneven_head_unevenly():
    even = np.zeros((256, 256), np.uint8)
    even[64:192, 64:192] = 200
    uneven = even.copy()
    uneven[64:128, 64:128] = 90
    total, difference = np.split(describe(even), 2)
    assert total.max() > 0
    assert np.abs(difference).max() < 1e-6 * total.max()
    assert np.split(describe(uneven), 2)[1].max() > 0.1
    np.testing.assert_allclose(describe(uneven), describe(uneven[:, ::-1]), atol=1e-9)


def test_the_rule_by_hand():
    scores = np.log([[0.7, 0.2, 0.1], [0.2, 0.3, 0.5], [0.1, 0.1, 0.8], [0.05, 0.9, 0.05]])
    assert decide(scores).tolist() == ["axial", "", "sagittal", "coronal"]  # a half is not sure enough


def test_nothing_seen_is_nothing_named_and_other_shapes_are_refused():
    assert estimate_planes(np.empty((0, 256, 256), np.uint8)).tolist() == []
    assert np.isfinite(describe(np.zeros((256, 256), np.uint8))).all()
    for wrong in (
        np.zeros((2, 128, 128), np.uint8),
        np.zeros((2, 256, 256), np.float32),
        np.zeros((256, 256), np.uint8),
    ):
        with pytest.raises(ValueError, match="expected"):
            estimate_planes(wrong)


def test_the_planes_told_by_eye_name_every_file_once():
    table = pd.read_csv(LABELS)
    assert table.file.is_unique
    assert set(table.plane) == set(PLANES)
    assert len(table) == 829
