from collections import Counter
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest

from sslbt.data.anatomy import BRAIN, GLIOMA, MENINGIOMA, PITUITARY, SELLA
from sslbt.data.matlab import CLASSES, read_folds, read_mat
from sslbt.data.phantom import PLANES, draw, make_person, make_sample, make_scanner
from sslbt.data.slices import Slice

PATIENTS = 15
SIZE = 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample")
    make_sample(path, PATIENTS, SIZE, seed=3)
    return path


@pytest.fixture(scope="module")
def slices(folder: Path) -> list[Slice]:
    return read(folder)


def read(folder: Path) -> list[Slice]:
    count = len(list(folder.glob("[0-9]*.mat")))
    return [read_mat((folder / f"{n}.mat").read_bytes(), f"{n}.mat") for n in range(1, count + 1)]


def draw_middle(label: int, plane: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    person = make_person(label, np.random.default_rng([label, number]))
    return draw(person, make_scanner(np.random.default_rng(number)), plane, 0.0, 128, np.random.default_rng(0))


def test_the_slices_are_as_the_dataset_stores_them(folder: Path, slices: list[Slice]) -> None:
    assert {s.pixels.shape for s in slices} == {(SIZE, SIZE)}
    assert {s.pixels.dtype for s in slices} == {np.dtype(np.int16)}
    assert len({int(s.pixels.max()) for s in slices}) > len(slices) / 2  # a range of its own
    assert all(s.pixels.min() >= 0 for s in slices)
    assert (folder / "1.mat").read_bytes().startswith(b"MATLAB 7.3")
    assert "synthetic" in (folder / "README.txt").read_text().lower()


def test_every_slice_says_that_it_is_synthetic_and_where_the_tumour_is(folder: Path, slices: list[Slice]) -> None:
    for number in range(1, len(slices) + 1):
        with h5py.File(folder / f"{number}.mat") as f:
            assert f["cjdata"].attrs["synthetic"] == 1
            mask = f["cjdata/tumorMask"][()].T
            x, y = f["cjdata/tumorBorder"][()].reshape(-1, 2).T.astype(int)
        assert 0 < mask.sum() < 0.2 * mask.size
        assert mask[y, x].all()


def test_classes_are_balanced_and_every_patient_has_three_to_nine_slices(slices: list[Slice]) -> None:
    label = {s.patient: s.label for s in slices}
    assert Counter(label.values()) == dict.fromkeys(CLASSES, 5)
    counts = Counter(s.patient for s in slices)
    assert len(counts) == PATIENTS
    assert 3 <= min(counts.values()) <= max(counts.values()) <= 9


def test_one_glioma_family_has_two_pids_and_the_rest_have_none(slices: list[Slice]) -> None:
    letters = {s.patient for s in slices if s.patient[-1].isalpha()}
    assert letters == {"P0011A", "P0011B"}
    assert {s.label for s in slices if s.patient in letters} == {"glioma"}


def test_folds_hold_whole_patients_of_every_class(folder: Path, slices: list[Slice]) -> None:
    folds = read_folds((folder / "cvind.mat").read_bytes(), "cvind.mat")
    assert len(folds) == len(slices)
    assert len({(s.patient, fold) for s, fold in zip(slices, folds, strict=True)}) == PATIENTS
    assert {(s.label, int(fold)) for s, fold in zip(slices, folds, strict=True)} == {
        (label, fold) for label in CLASSES for fold in range(1, 6)
    }


def test_a_patient_is_no_contiguous_run_of_files(slices: list[Slice]) -> None:
    changes = sum(a.patient != b.patient for a, b in pairwise(slices))
    assert changes > PATIENTS


def test_slices_differ_within_a_patient(slices: list[Slice]) -> None:
    assert len({s.pixels.tobytes() for s in slices}) == len(slices)


def test_the_seed_decides(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_sample(tmp_path / name, 3, 32, seed)
    a, b, c = ([s.pixels.tobytes() for s in read(tmp_path / name)] for name in "abc")
    assert a == b
    assert not set(a) & set(c)


def test_neighbours_resemble_each_other_more_than_strangers() -> None:
    def pixels(number: int, offset: float) -> np.ndarray:
        person, scanner = make_person(GLIOMA, np.random.default_rng(number)), make_scanner(np.random.default_rng(0))
        return draw(person, scanner, "axial", offset, 64, np.random.default_rng(0))[0].ravel()

    first, neighbour, stranger = pixels(1, 0.0), pixels(1, 0.3), pixels(2, 0.0)
    assert np.corrcoef(first, neighbour)[0, 1] > np.corrcoef(first, stranger)[0, 1]


@pytest.mark.parametrize("label", [MENINGIOMA, GLIOMA, PITUITARY])
@pytest.mark.parametrize("plane", PLANES)
def test_the_tumour_shows_in_every_plane(label: int, plane: str) -> None:
    for number in range(5):
        pixels, mask = draw_middle(label, plane, number)
        assert mask.sum() > 20
        assert pixels[mask].std() > 0


def test_meningioma_is_even_and_brighter_than_brain_and_glioma_is_not_even() -> None:
    spread: dict[int, list[float]] = {MENINGIOMA: [], GLIOMA: []}
    for label, values in spread.items():
        for number in range(8):
            pixels, mask = draw_middle(label, "coronal", number)
            values.append(pixels[mask].std() / pixels[mask].mean())
    assert np.median(spread[MENINGIOMA]) < 0.2 < np.median(spread[GLIOMA])


def test_meningioma_lies_at_the_surface_glioma_deep_and_pituitary_tumour_at_the_sella() -> None:
    for number in range(20):
        meningioma, glioma, pituitary = (
            make_person(label, np.random.default_rng(number)).tumour for label in (MENINGIOMA, GLIOMA, PITUITARY)
        )
        outwards = meningioma.centre * (1 + meningioma.radii.mean() / np.linalg.norm(meningioma.centre))
        assert np.linalg.norm(outwards / BRAIN) > 1
        assert np.linalg.norm(glioma.centre / BRAIN) < 0.9
        assert np.linalg.norm(pituitary.centre - SELLA) < 2


def test_pituitary_tumour_is_on_the_midline_and_below_the_middle_of_the_brain() -> None:
    for number in range(5):
        pixels, mask = draw_middle(PITUITARY, "coronal", number)
        down, across = (axis.mean() for axis in np.nonzero(mask))
        head = pixels > 0.15 * np.percentile(pixels, 99)
        rows, columns = np.nonzero(head.mean(1) > 0.1)[0], np.nonzero(head.mean(0) > 0.1)[0]
        assert abs(across - columns.mean()) < 0.1 * 128
        assert down > rows[0] + 0.3 * np.ptp(rows)
