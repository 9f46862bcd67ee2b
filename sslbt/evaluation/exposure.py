"""Pictures to fit `Outlier` with: slices as other scans would show them, and pictures that are no brain MRI.

Every function takes slices (batch, 1, side, side) in [0, 1] and the generator that decides, and gives as many pictures;
some make theirs from nothing and take only the shape.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

Make = Callable[[Tensor, Generator], Tensor]


def another_scan(slices: Tensor, generator: Generator) -> Tensor:
    """The same head held and scanned a little otherwise: still a brain MRI.

    Turned by up to 12 degrees, four fifths to five quarters of its size, mirrored left to right; gamma, an uneven coil,
    blur and noise.
    """
    slices = _move(slices, generator, turn=12, smallest=0.8, largest=1.25, shift=0.08)
    slices = slices.clamp(0, 1).pow(torch.exp2(_uniform(slices, generator, -0.7, 0.7)))
    slices = slices * (1 + 0.25 * _smooth(slices, generator, 3)).clamp_min(0.2)
    blurred = F.avg_pool2d(F.pad(slices, (1, 1, 1, 1), mode="replicate"), 3, 1)
    slices = slices.lerp(blurred, _uniform(slices, generator, -1, 1).clamp_min(0))
    return normalised((slices + _uniform(slices, generator).square() * 0.08 * _normal(slices, generator)).abs())


def no_brain(slices: Tensor, generator: Generator) -> Tensor:
    """Every maker gets its share of the slices to spoil."""
    parts = slices.tensor_split(len(MAKERS))
    made = [make(part, generator) for make, part in zip(MAKERS, parts, strict=True) if len(part)]
    return normalised(torch.cat(made))


def normalised(pictures: Tensor) -> Tensor:
    """A per cent of the pixels black and as many white, as `data.preprocess` leaves a slice."""
    flat = pictures.flatten(1)
    count = max(1, flat.shape[1] // 100)
    low, high = -(-flat).topk(count).values[:, -1], flat.topk(count).values[:, -1]
    low, high = low[:, None, None, None], high[:, None, None, None]
    return ((pictures - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)


def upside_down(slices: Tensor, generator: Generator) -> Tensor:
    """Flipped top to bottom, half of them left to right as well, which is a rotation by 180 degrees."""
    return _either(slices.flip(-2), slices.flip(-2, -1), generator)


def sideways(slices: Tensor, generator: Generator) -> Tensor:
    return _either(slices.transpose(-2, -1), slices.rot90(1, (-2, -1)), generator)


def shuffled(slices: Tensor, generator: Generator) -> Tensor:
    """Cut into 2 x 2, 4 x 4 or 8 x 8 squares, which change places."""
    side, pictures = slices.shape[-1], []
    for one in slices:
        count = 2 ** int(torch.randint(1, 4, (), generator=generator))
        squares = F.unfold(one[None], side // count, stride=side // count)
        squares = squares[..., torch.randperm(count**2, generator=generator)]
        pictures.append(F.fold(squares, (side, side), side // count, stride=side // count))
    return torch.cat(pictures)


def a_part(slices: Tensor, generator: Generator) -> Tensor:
    """A window on less than half of the side, turned at will."""
    return _move(slices, generator, turn=180, smallest=0.15, largest=0.45, shift=0.5)


def far_off(slices: Tensor, generator: Generator) -> Tensor:
    """A small head in a large dark picture."""
    return _move(slices, generator, turn=180, smallest=2.5, largest=5, shift=0.8)


def melted(slices: Tensor, generator: Generator) -> Tensor:
    """Bent beyond anatomy: the tissue of a head in other shapes."""
    cells = int(torch.randint(3, 9, (), generator=generator))
    shift = torch.cat([_smooth(slices, generator, cells) for _ in range(2)], 1).movedim(1, -1)
    place = F.affine_grid(torch.eye(2, 3).expand(len(slices), 2, 3), list(slices.shape), align_corners=False)
    grid = place + shift * _uniform(slices, generator, 0.15, 0.6)
    return F.grid_sample(slices, grid, align_corners=False)


def recoloured(slices: Tensor, generator: Generator) -> Tensor:
    """Greys through a crooked curve: the head by another kind of machine."""
    knots = torch.rand(len(slices), 6, generator=generator)
    knots[:, 0] *= (torch.rand(len(slices), generator=generator) < 0.3).float()  # the air mostly stays dark
    place = 5 * slices.flatten(1)
    left = place.floor().clamp_max(4).long()
    return torch.lerp(knots.gather(1, left), knots.gather(1, left + 1), place - left).view_as(slices)


def clouds(slices: Tensor, generator: Generator) -> Tensor:
    """Noise whose spectrum falls with the frequency by any power from 0 (white) to 2.5 (clouds; photographs have 1)."""
    side = slices.shape[-1]
    frequency = torch.hypot(torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)).clamp_min(1 / side)
    spectrum = torch.fft.rfft2(_normal(slices, generator)) * frequency ** -_uniform(slices, generator, 0, 2.5)
    noise = normalised(torch.fft.irfft2(spectrum, s=(side, side)))
    return noise.pow(torch.exp2(_uniform(slices, generator, -1.5, 2.5)))


def shapes(slices: Tensor, generator: Generator) -> Tensor:
    """Up to twelve ellipses and boxes, plain or with a hole, one over another, plain or cloudy."""
    side, most = slices.shape[-1], 12
    ground = _uniform(slices, generator) * (_uniform(slices, generator) < 0.4)
    picture, scale = ground.expand_as(slices), _uniform(slices, generator, 0.15, 1)
    count = _uniform(slices, generator, 1, most + 1)
    line = torch.linspace(-1, 1, side)
    for drawn in range(most):
        centre_x, centre_y = (_uniform(slices, generator, -0.8, 0.8) for _ in range(2))
        radius_x, radius_y = (_uniform(slices, generator, 0.05, 0.7) * scale for _ in range(2))
        angle, grey = _uniform(slices, generator, 0, math.pi), _uniform(slices, generator)
        x, y = line - centre_x, line[:, None] - centre_y
        x, y = (x * angle.cos() + y * angle.sin()) / radius_x, (y * angle.cos() - x * angle.sin()) / radius_y
        distance = _either(torch.hypot(x, y), torch.maximum(x.abs(), y.abs()), generator)
        hole = 0.8 * (_uniform(slices, generator) < 0.25)
        picture = torch.where((distance < 1) & (distance >= hole) & (drawn < count), grey, picture)
    return picture + _uniform(slices, generator).square() * (clouds(slices, generator) - 0.5) * (picture > 0)


def writing(slices: Tensor, generator: Generator) -> Tensor:
    """Lines of small marks, black on white or white on black."""
    side, pictures = slices.shape[-1], []
    for _ in slices:
        height, width = (int(length) for length in torch.randint(1, 8, (2,), generator=generator))
        chance = torch.rand(3, generator=generator)
        marks = (torch.rand(side, side, generator=generator) < 0.1 + 0.6 * chance[0]).float()
        marks[1::2] = 0  # between the lines
        page = marks.repeat_interleave(height, 0).repeat_interleave(width, 1)[:side, :side]
        page[:, : int(0.3 * side * chance[1])] = 0
        page[: int(0.5 * side * chance[2])] = 0
        pictures.append(page)
    return _either(torch.stack(pictures)[:, None], 1 - torch.stack(pictures)[:, None], generator)


def ramps(slices: Tensor, generator: Generator) -> Tensor:
    """Grey running one way, or as waves, with little noise."""
    angle = _uniform(slices, generator, 0, 2 * math.pi)
    line = torch.linspace(-1, 1, slices.shape[-1])
    ramp = line * angle.cos() + line[:, None] * angle.sin()
    waves = torch.sin(ramp * _uniform(slices, generator, 1, 40))
    grain = 0.3 * _uniform(slices, generator).square() * _normal(slices, generator)
    return _either(ramp, waves, generator) + grain


def dots(slices: Tensor, generator: Generator) -> Tensor:
    """Few bright pixels, or small squares, on nearly nothing."""
    bright = torch.rand(slices.shape, generator=generator)
    bright = bright * (torch.rand(slices.shape, generator=generator) < _uniform(slices, generator, 0.0005, 0.03))
    return _either(bright, F.max_pool2d(bright, 3, 1, 1), generator) + 0.02 * _normal(slices, generator)


# A third is upside down: the hardest to tell, near the top of the head above all.
MAKERS: tuple[Make, ...] = (
    *[upside_down] * 6, sideways, shuffled, a_part, far_off, melted, melted, recoloured, recoloured, clouds,
    shapes, shapes, writing, ramps, dots,
)  # fmt: skip


def _move(slices: Tensor, generator: Generator, turn: float, smallest: float, largest: float, shift: float) -> Tensor:
    """Another window: rotated by up to `turn` degrees, its side `smallest` to `largest` of the picture's, shifted."""
    angle, scale, mirror = torch.rand(3, len(slices), generator=generator)
    angle = math.radians(turn) * (2 * angle - 1)
    scale = smallest * (largest / smallest) ** scale
    x, y = shift * (2 * torch.rand(2, len(slices), generator=generator) - 1)
    cosine, sine, mirror = scale * angle.cos(), scale * angle.sin(), (mirror < 0.5) * 2.0 - 1
    rows = [torch.stack([cosine * mirror, -sine, x], 1), torch.stack([sine * mirror, cosine, y], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(slices.shape), align_corners=False)
    return F.grid_sample(slices, grid, align_corners=False)


def _either(first: Tensor, second: Tensor, generator: Generator) -> Tensor:
    return torch.where(_uniform(first, generator) < 0.5, first, second)


def _uniform(slices: Tensor, generator: Generator, low: float = 0, high: float = 1) -> Tensor:
    """A number for each picture, (batch, 1, 1, 1)."""
    return low + (high - low) * torch.rand(len(slices), 1, 1, 1, generator=generator)


def _normal(slices: Tensor, generator: Generator) -> Tensor:
    return torch.randn(slices.shape, generator=generator)


def _smooth(slices: Tensor, generator: Generator, cells: int) -> Tensor:
    """A field that changes little from pixel to pixel, about normal."""
    knots = torch.randn(len(slices), 1, cells, cells, generator=generator)
    return F.interpolate(knots, slices.shape[-2:], mode="bicubic", align_corners=True)
