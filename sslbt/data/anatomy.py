"""The anatomy of a made-up head, and how a slice of it is painted.

A head is a set of distances in three dimensions, in centimetres: x to the side, y to the front, z up, the origin in
the middle of the brain; a distance is negative inside. A slice paints what a plane of points meets, so the planes of
one person agree and neighbouring slices look alike. `points` are (3, ...) float32, distances have the shape `...`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates

MENINGIOMA, GLIOMA, PITUITARY = 1, 2, 3
BRAIN = (6.4, 8.4, 7.0)  # radii of the cerebrum
HIND, HIND_RADII = (0.0, -4.4, -3.9), (4.8, 3.6, 3.2)  # cerebellum and pons
SELLA = (0.0, 2.2, -2.7)  # where the pituitary gland sits
Triple = tuple[float, float, float]
Shape = tuple[Triple, Triple, float]


@dataclass(frozen=True)
class Tumour:
    """Where a tumour is and how it looks; lengths in cm, brightness 0 to 1."""

    label: int
    centre: np.ndarray  # (3,)
    radii: np.ndarray  # (3,)
    bright: float
    rough: float  # how far the border strays, as a share of the radius
    core: float  # the dark middle, as a share of the radius; 0 is none
    oedema: float  # how far the swelling reaches


@dataclass(frozen=True)
class Person:
    """One made-up head."""

    pose: np.ndarray  # (3, 3): rotation, then size and proportions
    noise: np.ndarray  # (32, 32, 32) of deviation 1, without slow waves: folds and textures
    ventricles: float  # their size; 1 is usual
    scalp: float  # thickness, cm
    white: float  # brightness of white matter less that of grey
    sulci: float  # their width
    tumour: Tumour


def paint(points: np.ndarray, person: Person) -> tuple[np.ndarray, np.ndarray]:
    """What a plane through a head shows.

    Args:
        points: (3, height, width) float32, cm.
        person: whose head.

    Returns:
        brightness (height, width) about 0 to 1, mask (height, width) bool: where the tumour is.
    """
    image = np.full(points.shape[1:], 0.01, np.float32)
    mask = np.zeros(points.shape[1:], bool)
    pixel = float(np.linalg.norm(points[:, 0, 1] - points[:, 0, 0]))
    cavity, skin, lump = (_roughly(distance, points, person) for distance in (_cavity, _skin, _lump))
    affected = lump < 0.5 + 1.5 * person.tumour.oedema
    for layer, where in (
        (paint_face, (skin < 0.5) & (cavity > -0.5)),
        (paint_skull, abs(cavity - 0.3) < 1.1),
        (paint_brain, cavity < 0.5),
        (paint_tumour, affected),
    ):
        canvas = Canvas(points[:, where], image[where], pixel)
        layer(canvas, person)
        image[where] = canvas.image
    mask[affected] = _lump(points[:, affected], person) < 0
    return image, mask


@dataclass
class Canvas:
    """Some points of a slice and how bright they are painted."""

    points: np.ndarray  # (3, n), cm
    image: np.ndarray  # (n,)
    pixel: float  # cm

    def paint(self, distance: np.ndarray, bright: float | np.ndarray, opacity: float = 1) -> None:
        """Paint where `distance` is negative, with soft edges one pixel wide."""
        self.image += (0.5 - distance / self.pixel).clip(0, opacity) * (bright - self.image)

    def paint_pairs(self, points: np.ndarray, shapes: Iterable[Shape], uneven: np.ndarray) -> None:
        """Paint ellipsoids (centre, radii, brightness) and their mirror images, with an uneven border."""
        paired = _paired(points)
        low, high = paired.min(1, initial=99) - 0.5, paired.max(1, initial=-99) + 0.5
        for centre, radii, bright in shapes:
            if np.all(np.add(centre, radii) > low) and np.all(np.subtract(centre, radii) < high):
                self.paint(_ball(paired, centre, radii) + uneven, bright)


def paint_face(canvas: Canvas, person: Person) -> None:
    """Skin, fat, muscle, eyes and air."""
    points = canvas.points
    skin, fine = _skin(points, person), _noise(points * 1.5, person)
    muscle = _noise(points * np.array([[0.8], [0.6], [0.35]], np.float32), person)
    canvas.paint(skin, 0.35)
    canvas.paint(skin + 0.12, 0.62 + 0.05 * fine)
    canvas.paint(_flesh(points) + 0.6 + 0.15 * muscle, (0.27 + 0.1 * muscle + 0.05 * fine).clip(0.08, 0.6))
    shapes = (
        ((3.2, 6.0, -3.0), (1.9, 2.4, 1.4), 0.55),  # fat of the orbits
        ((3.2, 6.9, -3.0), (1.2, 1.2, 1.2), 0.14),  # eyes
        ((0.9, 5.0, -10.3), (1.8, 3.0, 1.9), 0.3),  # tongue
        ((0.0, 3.3, -4.2), (1.4, 1.4, 0.9), 0.04),  # sphenoid sinus, below the sella
        ((2.6, 6.0, -6.4), (1.5, 1.7, 1.7), 0.04),  # maxillary sinuses
        ((0.5, 5.8, -3.6), (0.35, 2.2, 1.6), 0.04),  # ethmoid cells
        ((0.7, 5.5, -7.2), (0.4, 3.0, 1.0), 0.04),  # nose
        ((0.0, 1.4, -8.5), (0.9, 0.6, 3.5), 0.04),  # throat
        ((5.4, -2.6, -4.6), (1.0, 1.2, 1.2), 0.04),  # mastoid cells
    )
    canvas.paint_pairs(points, shapes, 0.15 * fine)


def paint_skull(canvas: Canvas, person: Person) -> None:
    """Bone with its marrow, and the dura, which takes up contrast."""
    cavity, coarse = _cavity(canvas.points, person), _noise(canvas.points * 0.35, person)
    canvas.paint(cavity - 0.6 - 0.1 * coarse, 0.07)
    canvas.paint(abs(cavity - 0.33) - 0.1, 0.22 + 0.05 * coarse, 0.8)
    canvas.paint(cavity, 0.3)


def paint_brain(canvas: Canvas, person: Person) -> None:
    """Cortex, white matter, deep nuclei, ventricles, cerebellum, brain stem and what lies between them."""
    cavity = _cavity(canvas.points, person)
    points = _pushed(canvas.points, person.tumour)
    x, y, z = points
    grey, white, fluid = 0.31, 0.31 + person.white, 0.12
    depth = cavity + 0.25
    radius = np.sqrt(sum(np.square(p / r) for p, r in zip(points, BRAIN, strict=True))).clip(0.2)
    fine = _noise(points * 1.5, person)
    folds = abs(_noise(points * radius**-0.5 * 0.7, person))  # a power below 0: folds run from the surface inwards
    canvas.paint(cavity + 0.1, fluid)
    canvas.paint(depth, grey)
    canvas.paint(depth + (0.9 - 0.6 * folds).clip(0.2), white)
    canvas.paint(np.maximum(depth, 0.5 * (folds - person.sulci * (1 + depth / 2.2))), fluid)
    fissure = np.maximum(abs(x + 0.15 * fine) - 0.15, 2.5 - np.hypot(y / 1.4, z - 0.3))
    canvas.paint(np.maximum(depth, fissure), fluid, 0.6)
    canvas.paint(np.maximum(cavity, np.maximum(abs(x) - 0.06, 3.6 - np.hypot(y / 1.3, z))), 0.45, 0.4)  # falx
    canvas.paint(np.maximum(np.hypot(x, cavity + 0.1) - 0.35, -z - 1), 0.6)  # sagittal sinus

    hind = np.maximum(_ball(points, HIND, [r - 0.3 for r in HIND_RADII]), z + 2.0 - 0.25 * (y + 2.5))
    canvas.paint(np.maximum(hind - 0.15, depth), fluid)
    canvas.paint(np.maximum(hind, depth), grey + 0.04 * np.sin(8 * np.hypot(y + 2, z + 4) + 2 * fine))
    stem = np.maximum(np.hypot(x, y + 1.0 + 0.15 * z) - 1, z + 1)
    pons = _ball(points, (0, 0.1, -4.0), (1.5, 1.3, 1.4))
    canvas.paint(np.maximum(np.minimum(stem, pons), depth), white)

    size = person.ventricles
    shapes = (
        ((0.0, -0.2, 1.7), (1.6, 3.6, 1.5), white + 0.02),  # corpus callosum
        ((1.5, -0.4, 0.0), (1.1, 1.7, 0.9), grey),  # thalamus
        ((2.6, 1.0, 0.4), (0.8, 2.0, 1.0), grey),  # putamen
        ((0.75 + 0.25 * size, 0.6, 1.5), (0.45 * size, 2.6 * size, 0.55 * size), 0.1),  # lateral ventricles
        ((1.9, -3.0, 0.9), (0.5 * size, 1.7 * size, 0.8 * size), 0.1),  # their hind horns
        ((0.0, 0.2, -0.3), (0.15 * size, 1.2, 0.7), 0.1),  # third ventricle
        ((0.0, -2.4, -4.2), (0.5, 0.35, 0.8), 0.1),  # fourth ventricle
        (SELLA, (0.6, 0.45, 0.35), 0.5),  # pituitary gland
        ((1.1, 2.2, -2.8), (0.3, 0.5, 0.4), 0.04),  # carotid arteries: fast blood is dark
    )
    canvas.paint_pairs(points, shapes, 0.08 * fine)


def paint_tumour(canvas: Canvas, person: Person) -> None:
    """The tumour, with its swelling and dark core if it has them."""
    points, tumour = canvas.points, person.tumour
    fine, lump = _noise(points * 1.5, person), _lump(points, person)
    if tumour.oedema:
        swelling = lump - tumour.oedema * (1 + 0.5 * _noise(points * 0.25, person))
        canvas.paint(0.15 * np.maximum(swelling, _cavity(points, person) + 0.4), 0.2, 0.7)  # 0.15: a soft edge
    canvas.paint(lump, tumour.bright + 0.2 * tumour.rough * fine)
    if tumour.core:
        rim = (1 - tumour.core) * float(tumour.radii.mean())
        canvas.paint(lump + rim * (1 + 0.4 * fine), 0.17 + 0.02 * fine)


def _roughly(distance: Callable[[np.ndarray, Person], np.ndarray], points: np.ndarray, person: Person) -> np.ndarray:
    """A distance from one pixel of each small block, within half a cm: enough to leave out what is far."""
    _, height, width = points.shape
    step = max(1, height // 64)
    return distance(points[:, ::step, ::step], person).repeat(step, 0).repeat(step, 1)[:height, :width]


def _lump(points: np.ndarray, person: Person) -> np.ndarray:
    """Distance to the tumour's border: glioma stays within the brain, meningioma within the dura."""
    tumour = person.tumour
    uneven = tumour.rough * float(tumour.radii.mean()) * _noise(points * 0.45, person)
    lump = _ball(points, tumour.centre, tumour.radii) + uneven
    if tumour.label == PITUITARY:
        return lump
    return np.maximum(lump, _cavity(points, person) + (0.4 if tumour.label == GLIOMA else 0))


def _cavity(points: np.ndarray, _: Person) -> np.ndarray:
    """Distance to the inside of the skull: cerebrum over the skull base, temporal lobes, hindbrain, spinal canal."""
    x, y, z = points
    base = -2.2 - z + 0.8 * np.tanh(2 * y - 7) - 0.3 * np.cos(x)  # higher in front, over the orbits
    cerebrum = np.maximum(_ball(points, (0, 0, 0), [r + 0.25 for r in BRAIN]), base)
    temporal = _ball(_paired(points), (4.1, 0.6, -2.6), (2.3, 3.8, 2.1))
    hind = _ball(points, HIND, HIND_RADII)
    canal = np.maximum(np.hypot(x, y + 1.6 + 0.12 * z) - 1.1, z + 3)
    return _union(_union(_union(cerebrum, temporal), hind), canal)


def _flesh(points: np.ndarray) -> np.ndarray:
    """Distance to face and neck."""
    x, y, z = points
    face = _ball(points, (0, 3.0, -7.5), (6.4, 6.2, 8.0))
    neck = np.maximum(np.hypot(x, y + 1.8) - 6.2, z + 4)
    nose = _ball(points, (0, 9.0, -6.6), (1.2, 1.8, 1.6))
    chin = _ball(points, (0, 7.4, -12), (2.6, 2.2, 2))
    return _union(_union(_union(face, neck), nose), chin)


def _skin(points: np.ndarray, person: Person) -> np.ndarray:
    """Distance to the outside of the head."""
    skull = _ball(points, (0, 0, 0), [r + 0.85 + person.scalp for r in BRAIN])
    nape = _ball(points, HIND, [r + 0.6 + person.scalp for r in HIND_RADII])
    ear = _ball(_paired(points), (7.9, -1.0, -4.2), (0.5, 1.2, 1.7))
    return np.minimum(_union(_union(skull, nape), _flesh(points), 1.5), ear)


def _pushed(points: np.ndarray, tumour: Tumour) -> np.ndarray:
    """Points drawn towards the tumour, so that what lies there appears pushed away from it."""
    away = points - tumour.centre.astype(np.float32)[:, None]
    near = np.exp(-np.square(away).sum(0) / float(2 * (1.5 * tumour.radii.mean()) ** 2))
    return points - 0.3 * near * away


def _ball(points: np.ndarray, centre: Sequence[float] | np.ndarray, radii: Sequence[float] | np.ndarray) -> np.ndarray:
    """About the distance to an ellipsoid."""
    near = slope = np.float32(1e-6)
    for p, c, r in zip(points, centre, radii, strict=True):
        scaled = np.square((p - np.float32(c)) * np.float32(1 / r))
        near = near + scaled
        slope = slope + scaled * np.float32(r**-2)
    near = np.sqrt(near)
    return near * (near - 1) / np.sqrt(slope)


def _paired(points: np.ndarray) -> np.ndarray:
    """The same points, all on one side: for what there is left and right."""
    return np.stack([abs(points[0]), points[1], points[2]])


def _union(a: np.ndarray, b: np.ndarray, soft: float = 0.6) -> np.ndarray:
    """The distance to two shapes grown together."""
    return np.minimum(a, b) - soft / 4 * (1 - abs(a - b) / soft).clip(0) ** 2


def _noise(points: np.ndarray, person: Person) -> np.ndarray:
    """The person's noise at points: bumps about 1 cm wide."""
    return map_coordinates(person.noise, 4 * points, np.float32, order=1, mode="grid-wrap")
