import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import uniform_filter

from sslbt.data import duplicates
from sslbt.data.duplicates import NEAR, similar_pairs
from sslbt.data.formats import read
from sslbt.data.phantom import make_sample
from sslbt.data.reading import normalise


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    """Slices of phantoms as the cache holds them, and whose they are."""
    folder = tmp_path_factory.mktemp("phantoms")
    make_sample(folder, patients=12, size=256)
    found = [next(read(path.read_bytes(), path.name)) for path in sorted(folder.glob("[0-9]*.mat"))]
    return np.stack([normalise(slice_.pixels) for slice_ in found]), np.array([slice_.patient for slice_ in found])


def saved(picture: Image.Image, **how: object) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", **how)
    return Image.open(file)


COPIES = {
    "identical": lambda picture: picture,
    "compressed": lambda picture: saved(picture, quality=30),
    "half the size": lambda picture: picture.resize((128, 128)).resize((256, 256)),
    "darker": lambda picture: picture.point(lambda grey: int(255 * (grey / 255) ** 1.5)),
    "mirrored": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "noisy": lambda picture: Image.blend(picture, Image.effect_noise((256, 256), 60), 0.1),
}


def with_copy(slices: tuple[np.ndarray, np.ndarray], how: str, patient: str) -> pd.DataFrame:
    pixels, families = slices
    copy = np.asarray(COPIES[how](Image.fromarray(pixels[3])))
    return similar_pairs(np.concatenate([pixels, copy[None]]), np.append(families, patient))


def test_different_patients_are_not_alike(slices: tuple[np.ndarray, np.ndarray]) -> None:
    assert similar_pairs(*slices).empty


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_under_another_name_is_found(slices: tuple[np.ndarray, np.ndarray], how: str) -> None:
    (pair,) = with_copy(slices, how, "somebody else").itertuples(index=False)
    assert (pair.first, pair.second) == (3, len(slices[0]))
    assert NEAR < pair.likeness <= 1
    if how in ("identical", "mirrored"):
        assert pair.likeness > 0.9999


def test_a_copy_under_the_same_name_is_no_leak(slices: tuple[np.ndarray, np.ndarray]) -> None:
    assert with_copy(slices, "identical", slices[1][3]).empty


def test_likeness_is_the_correlation_of_details(
    slices: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "NEAR", 0.4)
    monkeypatch.setattr(duplicates, "COARSE", 0.05)
    monkeypatch.setattr(duplicates, "BLOCK", 7)
    pixels, families = slices[0][:30], slices[1][:30]
    small = pixels.reshape(-1, 64, 4, 64, 4).mean(axis=(2, 4))
    counts = uniform_filter(np.ones((64, 64)), 9, mode="constant")
    fine = np.stack([picture - uniform_filter(picture, 9, mode="constant") / counts for picture in small])
    expected = {}
    for first in range(30):
        for second in range(first + 1, 30):
            likeness = max(
                np.corrcoef(one.ravel(), fine[second].ravel())[0, 1] for one in (fine[first], fine[first][:, ::-1])
            )
            if families[first] != families[second] and likeness > 0.4:
                expected[first, second] = likeness
    found = similar_pairs(pixels, families)
    assert len(expected) > 3
    assert dict(zip(zip(found["first"], found["second"], strict=True), found.likeness, strict=True)) == pytest.approx(
        expected, abs=2e-3
    )
    assert found.likeness.is_monotonic_decreasing


def test_one_slice_is_like_nothing() -> None:
    assert list(similar_pairs(np.zeros((1, 256, 256), np.uint8), np.array(["a"]))) == ["first", "second", "likeness"]
