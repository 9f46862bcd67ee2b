"""Synthetic phantoms: sketches of contrast-enhanced T1 slices of heads with a tumour. No patient behind any of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter

from sslbt.data.anatomy import BRAIN, GLIOMA, MENINGIOMA, PITUITARY, SELLA, Person, Tumour, paint
from sslbt.data.matlab import write_folds, write_mat

PATIENTS = 90
PLANES = ("axial", "coronal", "sagittal")
README = """Synthetic phantoms drawn by sslbt (sslbt/data/phantom.py) from random numbers: no patient was scanned.
They show that the software runs; they say nothing about real tumours.
Layout: the figshare brain tumour dataset, doi 10.6084/m9.figshare.1512427.
"""


@dataclass(frozen=True)
class Scanner:
    """How one examination turns brightness into pixels."""

    view: float  # side of the square picture, cm
    shift: np.ndarray  # (2,) of its centre, cm
    gain: float
    gamma: float
    coil: np.ndarray  # (3,): brighter to the right, to the bottom, to the rim
    grain: float
    blur: float  # pixels of 256


def make_sample(folder: Path, patients: int = PATIENTS, size: int = 256, seed: int = 0) -> None:
    """Write phantoms of `patients` made-up patients, classes in equal parts, in the figshare dataset's layout.

    1.mat, 2.mat, ... hold 3 to 9 slices of each patient over three planes, in random order of patients and planes;
    cvind.mat holds five folds by PID; README.txt says what this is.

    Args:
        folder: is made if missing.
        patients: number of PIDs.
        size: height and width of a slice in pixels.
        seed: the same seed gives the same pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    identities = _identities(patients)
    folds = []
    for run in np.random.default_rng([seed, 0]).permutation(3 * patients):
        index, plane = divmod(int(run), 3)
        pid, origin = identities[index]
        label = index % 3 + 1
        person = make_person(label, np.random.default_rng([seed, 1, origin]))
        scanner = make_scanner(np.random.default_rng([seed, 2, index]))
        rng = np.random.default_rng([seed, 3, int(run)])
        count = rng.choice(3, p=(0.4, 0.35, 0.25)) + 1
        for offset in rng.uniform(-0.15, 0.15) + (np.arange(count) - (count - 1) / 2) * 0.3:
            pixels, mask = draw(person, scanner, PLANES[plane], offset, size, rng)
            folds.append(index // 3 % 5 + 1)
            write_mat(folder / f"{len(folds)}.mat", pixels, label, pid, mask, synthetic=True)
    write_folds(folder / "cvind.mat", np.array(folds))
    (folder / "README.txt").write_text(README)


def _identities(patients: int) -> list[tuple[str, int]]:
    """PID and origin of each patient. Every fifth glioma patient is the one before, examined again.

    As in the dataset, the two PIDs differ in a trailing letter and lie in different folds.
    """
    identities = [(f"P{index + 1:04d}", index) for index in range(patients)]
    for again in range(GLIOMA - 1 + 3 * 4, patients, 15):
        pid, origin = identities[again - 3]
        identities[again - 3], identities[again] = (f"{pid}A", origin), (f"{pid}B", origin)
    return identities


def make_person(label: int, rng: Generator) -> Person:
    """A head with a tumour of class `label`."""
    noise = rng.standard_normal((32, 32, 32), dtype=np.float32)
    noise = gaussian_filter(noise, 1.6, mode="wrap") - gaussian_filter(noise, 3.2, mode="wrap")
    roll, pitch, yaw = rng.normal(0, (0.04, 0.06, 0.04))
    pose = _rotation(0, 2, roll) @ _rotation(1, 2, pitch) @ _rotation(0, 1, yaw)
    return Person(
        pose=np.diag(1 / (rng.normal(1, 0.03) * rng.normal(1, 0.02, 3))) @ pose,
        noise=noise / noise.std(),
        ventricles=rng.uniform(0.7, 1.5),
        scalp=rng.uniform(0.25, 0.5),
        white=rng.uniform(0.02, 0.1),
        sulci=rng.uniform(0.2, 0.55),
        tumour=make_tumour(label, rng),
    )


def make_tumour(label: int, rng: Generator) -> Tumour:
    """A tumour where and how its class has it."""
    stretch = rng.uniform(0.85, 1.2, 3)
    if label == PITUITARY:
        radius = rng.uniform(1.0, 1.8)
        centre = np.add(SELLA, (rng.normal(0, 0.15), 0, 0.6 * radius))
        return Tumour(label, centre, radius * stretch * (1, 0.9, 1.2), rng.uniform(0.42, 0.64), 0.1, 0, 0)
    direction = rng.standard_normal(3)
    if label == MENINGIOMA:
        radius = rng.uniform(1.5, 2.8)
        direction[2] = 0.4 + abs(direction[2])
        surface = direction / np.linalg.norm(direction) * BRAIN
        centre = surface * (1 - 0.75 * radius / np.linalg.norm(surface))
        return Tumour(label, centre, radius * stretch, rng.uniform(0.5, 0.72), 0.08, 0, rng.uniform(0, 0.8))
    radius = rng.uniform(1.6, 3.0)
    centre = direction / np.linalg.norm(direction) * rng.uniform(0.1, 0.5) * BRAIN + (0, 0, 1)
    centre[0] += np.copysign(1.5, centre[0])
    core = rng.uniform(0.5, 0.85) if rng.random() < 0.85 else 0
    return Tumour(label, centre, radius * stretch, rng.uniform(0.36, 0.6), 0.22, core, rng.uniform(1.0, 2.5))


def make_scanner(rng: Generator) -> Scanner:
    """The settings of one examination."""
    return Scanner(
        view=rng.uniform(23.5, 25.5),
        shift=rng.normal(0, 0.3, 2).astype(np.float32),
        gain=400 * 15 ** rng.uniform(),
        gamma=rng.uniform(0.9, 1.15),
        coil=rng.normal((0, 0, 0.2), (0.06, 0.08, 0.1)).astype(np.float32),
        grain=rng.uniform(0.008, 0.025),
        blur=rng.uniform(0.5, 0.9),
    )


def draw(
    person: Person, scanner: Scanner, plane: str, offset: float, size: int, rng: Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One slice through the tumour.

    Args:
        person: whom to draw.
        scanner: how to show it.
        plane: axial, coronal or sagittal.
        offset: of the plane from the tumour's centre, as a share of its radius.
        size: height and width in pixels.
        rng: for the noise, which differs from slice to slice.

    Returns:
        pixels (size, size) int16, mask (size, size) bool: where the tumour is.
    """
    across, down = np.meshgrid(*[np.linspace(-1, 1, size, dtype=np.float32)] * 2)
    image, mask = paint(_plane(person, scanner, plane, offset, across, down), person)
    coil = 1 + scanner.coil[0] * across + scanner.coil[1] * down + scanner.coil[2] * (across**2 + down**2)
    image = gaussian_filter(image, scanner.blur * size / 256) * coil.clip(0.3)
    real, imaginary = scanner.grain * rng.standard_normal((2, size, size), dtype=np.float32)
    image = np.hypot(image.clip(0) ** scanner.gamma + real, imaginary)  # magnitude images have Rician noise
    return (image * (scanner.gain * rng.uniform(0.8, 1.2))).clip(0, 32767).astype(np.int16), mask


def _plane(
    person: Person, scanner: Scanner, plane: str, offset: float, across: np.ndarray, down: np.ndarray
) -> np.ndarray:
    """The head's coordinates (3, height, width) of a picture's pixels."""
    right, below = (scanner.view / 2 * v + s for v, s in zip((across, down), scanner.shift, strict=True))
    through, axis = np.linalg.solve(person.pose, person.tumour.centre), (2, 1, 0)[PLANES.index(plane)]
    level = np.full_like(right, through[axis] + offset * person.tumour.radii.mean())
    points = {
        "axial": (right, -below, level),
        "coronal": (right, level, -below - 2.2),
        "sagittal": (level, -right + 0.8, -below - 2.2),
    }[plane]
    return np.einsum("ij,jhw->ihw", person.pose.astype(np.float32), np.stack(points))


def _rotation(a: int, b: int, angle: float) -> np.ndarray:
    turn = np.eye(3)
    turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    return turn
