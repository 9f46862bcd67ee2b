from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import zoom

from sslbt.data import dicom, nifti, phantom
from sslbt.data.normalise import normalise
from sslbt.data.plane import PLANES, decide, describe, estimate_planes

PEOPLE = 15


def draw(plane: str) -> np.ndarray:
    """A phantom of each person, as the cache holds it."""
    pictures = []
    for number in range(PEOPLE):
        person = phantom.make_person(number % 3 + 1, np.random.default_rng([number, 0]))
        scanner = phantom.make_scanner(np.random.default_rng([number, 1]))
        pixels, _ = phantom.draw(person, scanner, plane, 0.0, 256, np.random.default_rng([number, 2]))
        pictures.append(normalise(pixels))
    return np.stack(pictures)


@pytest.fixture(scope="module")
def axial() -> np.ndarray:
    return draw("axial")


@pytest.fixture(scope="module")
def coronal() -> np.ndarray:
    return draw("coronal")


# Learnt from patients, it takes most sagittal phantoms for coronal ones: their faces are too plain.
def test_axial_and_coronal_phantoms_are_told_apart(axial: np.ndarray, coronal: np.ndarray) -> None:
    assert (estimate_planes(axial) == "axial").mean() >= 0.9
    assert (estimate_planes(coronal) == "coronal").mean() >= 0.9


def test_planes_are_named_as_everywhere() -> None:
    assert tuple(PLANES) == phantom.PLANES
    assert set(PLANES) == set(dicom.PLANES) == set(nifti.PLANES)


def test_the_most_probable_plane_is_named_if_it_is_sure() -> None:
    # e^1.2 / (e^1.2 + 2) = 0.62, e^1 / (e^1 + 2) = 0.58; e^2 / (e^2 + e^1.8 + 1) = 0.51
    scores = np.array([[1.2, 0, 0], [1, 0, 0], [5, 6.2, 5], [-1, -1, 3], [2, 1.8, 0], [0, 0, 0]])
    assert decide(scores).tolist() == ["axial", "", "coronal", "sagittal", "", ""]


def test_edges_are_counted_by_their_direction() -> None:
    across, down = np.meshgrid(np.arange(256), np.arange(256))
    waves = 128 + 100 * np.sin(across / 8)
    slanting = 128 + 100 * np.sin((across + down) / 12)
    by_direction = [describe(p).reshape(2, 6, 3, 8).sum(axis=(1, 2)) for p in (waves, waves.T, slanting)]
    summed = [total / total.sum() for total, _ in by_direction]
    np.testing.assert_allclose(summed[0], np.eye(8)[0], atol=0.01)  # brightness changes to the right
    np.testing.assert_allclose(summed[1], np.eye(8)[4], atol=0.01)  # a quarter of a turn on
    np.testing.assert_allclose(summed[2], (np.eye(8)[2] + np.eye(8)[6]) / 2, atol=0.05)  # with its mirror image
    # Every edge of the slanting waves is missing from their mirror image: the difference is as large as the sum.
    np.testing.assert_allclose(by_direction[2][1], by_direction[2][0], atol=0.1)


def test_edges_are_counted_where_they_are() -> None:
    picture = np.full((256, 256), 200.0)
    picture[20:60, 20:60] = 250  # above, on the left
    total, difference = describe(picture).reshape(2, 6, 3, 8).sum(axis=3)
    assert total[:2, :2].sum() > 0.99 * total.sum()
    np.testing.assert_allclose(difference, total, atol=1e-9)  # nothing like it on the right


def test_a_picture_equal_to_its_mirror_image_shows_no_difference(axial: np.ndarray) -> None:
    picture = axial[0] // 2 + axial[0, :, ::-1] // 2
    assert np.abs(describe(picture)[144:]).max() < 1e-9


def test_mirroring_changes_nothing(axial: np.ndarray, coronal: np.ndarray) -> None:
    pixels = np.concatenate([axial, coronal])
    for picture in pixels:
        np.testing.assert_allclose(describe(picture[:, ::-1]), describe(picture), atol=1e-9)
    assert (estimate_planes(pixels[:, :, ::-1]) == estimate_planes(pixels)).all()


def test_brightness_and_place_change_nothing(axial: np.ndarray) -> None:
    picture = axial[0].astype(float)
    lone = np.where(picture > 40, picture, 0)  # no noise, so that nothing is rolled over the rim
    np.testing.assert_allclose(describe(lone / 3), describe(lone), atol=1e-9)
    np.testing.assert_allclose(describe(np.roll(lone, (8, -4), axis=(0, 1))), describe(lone), atol=1e-9)


def test_size_changes_little(axial: np.ndarray) -> None:
    small = np.pad(zoom(axial, (1, 0.75, 0.75), order=1), ((0, 0), (32, 32), (32, 32)))
    assert (estimate_planes(small) == "axial").mean() >= 0.9


@pytest.mark.parametrize("grey", [0, 9, 255])
def test_an_empty_picture_has_no_plane(grey: int) -> None:
    assert estimate_planes(np.full((2, 256, 256), grey, np.uint8)).tolist() == ["", ""]


def test_every_slice_gets_an_answer(axial: np.ndarray, coronal: np.ndarray) -> None:
    planes = estimate_planes(np.stack([axial[0], coronal[0], axial[1]]))
    assert planes.shape == (3,)
    assert planes.dtype.kind == "U"
    assert set(planes) <= {*PLANES, ""}
    assert planes.tolist() == [estimate_planes(p[None])[0] for p in (axial[0], coronal[0], axial[1])]
    assert estimate_planes(axial[:0]).shape == (0,)


@pytest.mark.parametrize("shape", [(256, 256), (1, 128, 128), (1, 1, 256, 256)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        estimate_planes(np.zeros(shape, np.uint8))


def test_other_types_are_refused() -> None:
    with pytest.raises(ValueError, match="float32"):
        estimate_planes(np.zeros((1, 256, 256), np.float32))


def test_the_labels_told_by_eye_are_whole() -> None:
    labels = pd.read_csv(Path(__file__).with_name("planes.csv"))
    assert labels.file.is_unique
    assert set(labels.plane) == set(PLANES)
    assert len(labels) == 829


def test_an_uneven_head_differs_from_its_mirror_image_and_counts_the_same() -> None:
    uneven = np.zeros((256, 256), np.uint8)
    uneven[64:192, 64:192] = 200
    uneven[64:128, 64:128] = 90
    assert np.split(describe(uneven), 2)[1].max() > 0.1
    np.testing.assert_allclose(describe(uneven), describe(uneven[:, ::-1]), atol=1e-9)
