import numpy as np
import pandas as pd
import pytest

from sslbt.evaluation.intervals import mean_interval
from sslbt.evaluation.localisation import centre_prior, localisation_table, localise

CLASSES = ("meningioma", "glioma", "pituitary")


def spot(row: int, column: int, size: int = 112) -> np.ndarray:
    values = np.zeros((size, size), np.float32)
    values[row, column] = 1
    return values


def square(row: int, column: int, side: int, size: int = 112) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[row : row + side, column : column + side] = True
    return mask


def test_a_worked_example() -> None:
    """At 112 px the tolerance is 7.5 px, in every direction alike."""
    mask = square(40, 40, 10)  # rows and columns 40 to 49
    maps = np.stack(
        [spot(45, 45), spot(45, 56), spot(45, 57), spot(54, 54), spot(55, 55), 3 * spot(45, 45) + spot(0, 0)]
    )
    found = localise(maps, np.stack([mask] * 6))
    assert found.pointing.tolist() == [1, 1, 0, 1, 0, 1]  # distances 0, 7, 8, 7.07, 8.49, 0
    assert found.inside.tolist() == [1, 0, 0, 0, 0, 1]
    assert found.share.tolist() == [1, 0, 0, 0, 0, 0.75]


def test_without_a_tumour_or_a_map_there_is_no_answer() -> None:
    masks = np.stack([np.zeros((112, 112), bool), square(40, 40, 10)])
    found = localise(np.stack([spot(45, 45), 0 * spot(0, 0)]), masks)
    assert found.iloc[0].isna().all()
    assert np.isnan(found.share[1])


def test_an_even_map_has_the_tumours_area_as_its_share() -> None:
    found = localise(np.ones((1, 112, 112), np.float32), square(10, 20, 28)[None])
    assert found.share[0] == pytest.approx(1 / 16)


def test_the_centre_prior_is_a_round_hill_in_the_middle() -> None:
    prior = centre_prior(97)
    assert np.unravel_index(prior.argmax(), prior.shape) == (48, 48)
    np.testing.assert_allclose(prior, prior.T)
    np.testing.assert_allclose(prior, prior[::-1])
    assert prior[48, 48 + 16] == pytest.approx(np.exp(-0.5), abs=0.01)  # a sixth of the side: one deviation


@pytest.fixture(scope="module")
def made() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nine slices with tumours of growing size, one without."""
    masks = np.stack(
        [square(100, 100, side, 256) for side in (8, 12, 16, 24, 28, 32, 48, 56, 64)] + [np.zeros((256, 256), bool)]
    )
    return masks, np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1]), np.array(list("aabbccddee"))


def test_the_table_has_every_group_with_its_mean_and_interval(made: tuple[np.ndarray, ...]) -> None:
    masks, labels, families = made
    hit = np.stack([spot(48, 48)] * 10)  # 108 to 112 of 256 px: in every tumour, or within the tolerance of it
    half = hit.copy()
    half[labels == 1] = spot(5, 5)
    table = localisation_table({"good": hit, "half": half}, masks, labels, CLASSES, families)
    assert list(table.columns) == [
        "method", "by", "group", "slices", "pointing", "pointing_ci_low", "pointing_ci_high", "inside", "inside_ci_low",
        "inside_ci_high", "share", "share_ci_low", "share_ci_high",
    ]  # fmt: skip
    good, bad = (table[table.method == method].set_index("group") for method in ("good", "half"))
    assert good.by.tolist() == ["all", "class", "class", "tumour size", "tumour size", "tumour size"]
    assert good.slices.tolist() == [9, 5, 4, 3, 3, 3]
    assert (good.pointing == 1).all()
    assert bad.pointing[["all", "meningioma", "glioma"]].tolist() == pytest.approx([5 / 9, 1, 0])
    expected = mean_interval(1.0 - labels[:9], families[:9])
    assert bad.loc["all", ["pointing", "pointing_ci_low", "pointing_ci_high"]].tolist() == pytest.approx(expected)


def test_sizes_are_thirds_with_their_limits(made: tuple[np.ndarray, ...]) -> None:
    masks, labels, families = made
    even = np.ones((10, 112, 112), np.float32)
    table = localisation_table({"even": even}, masks, labels, CLASSES, families)
    sizes = table[table.by == "tumour size"]
    low, high = np.quantile(masks[:9].mean(axis=(1, 2)), [1 / 3, 2 / 3])
    assert sizes.group.tolist() == [
        f"small, up to {100 * low:.1f} % of the picture",
        f"middle, {100 * low:.1f} % to {100 * high:.1f} %",
        f"large, above {100 * high:.1f} %",
    ]
    areas = masks[:9].mean(axis=(1, 2)).reshape(3, 3).mean(axis=1)
    assert sizes.share.to_numpy() == pytest.approx(areas, rel=0.1)


def test_the_smallest_tumour_stays_one_at_the_maps_size() -> None:
    masks = np.stack([square(101, 101, 1, 256), square(32, 64, 64, 256)])
    maps = np.stack([spot(12, 12, 32), spot(4, 8, 32)])  # 8 px each
    table = localisation_table({"m": maps}, masks, np.array([0, 0]), CLASSES, np.array(["a", "b"]))
    assert table.slices[0] == 2
    assert table.pointing[0] == 1
    assert table.share[0] == 1


def test_without_any_mask_the_table_is_empty() -> None:
    table = localisation_table(
        {"m": np.ones((2, 32, 32), np.float32)}, np.zeros((2, 256, 256), bool), np.zeros(2, int), CLASSES, np.arange(2)
    )
    assert isinstance(table, pd.DataFrame)
    assert table.empty
    assert "pointing_ci_low" in table
