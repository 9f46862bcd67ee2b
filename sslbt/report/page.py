"""Pages of a run: each one HTML file that holds all it shows, loads nothing and runs nothing."""

import base64
import io
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

DPI = 192  # of figures: twice what a page shows, for sharp screens and print
CSS_PIXELS = 96  # an inch
OUTLINE, HEAT = (95, 211, 223), (255, 140, 0)  # of a tumour, and what spoke for a class
OPAQUE = 0.65  # where the heat is 1
QUALITY = 90  # of JPEG
NBSP = "\u00a0"


@dataclass(frozen=True)
class Picture:
    """A picture of a page, or of a table's cell."""

    src: str  # a data URI
    alt: str  # what it shows, for whoever can't see it
    width: int  # on the page; less where the page is narrower


@dataclass(frozen=True)
class Table:
    """Rows of text, numbers and pictures."""

    head: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    texts: int = 1  # so many columns, from the left, hold text; the others hold numbers
    total: tuple[Any, ...] = ()  # a last row that sums up
    more: str = ""  # what is not shown


def render(template: str, title: str, synthetic: bool, facts: list[tuple[str, str]], **content: Any) -> str:
    """A whole page.

    Args:
        template: name of a file of this folder that extends `page.html.jinja`.
        title: what the page is about.
        synthetic: whether phantoms are among the slices, which the page says at the top.
        facts: name and value of what identifies the data and the run.
        content: what the template asks for; every text in it is escaped.
    """
    return _environment().get_template(template).render(title=title, synthetic=synthetic, facts=facts, **content)


def picture(figure: Figure) -> str:
    """A figure as a data URI: PNG, without a ground of its own, so that it suits light and dark pages."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI, transparent=True, metadata={"Software": None})
    return _data_uri(out.getvalue())


def chart(figure: Figure, alt: str) -> Picture:
    """A figure in the size it was drawn for."""
    return Picture(picture(figure), alt, round(figure.get_figwidth() * CSS_PIXELS))


def grey(pixels: np.ndarray, alt: str, width: int) -> Picture:
    """A slice, (height, width) uint8; small ones hold no more pixels than sharp screens show."""
    image, out = Image.fromarray(np.ascontiguousarray(pixels)), io.BytesIO()
    image.thumbnail((2 * width, 2 * width))
    image.save(out, "PNG", optimize=True)
    return Picture(_data_uri(out.getvalue()), alt, width)


def overlay(pixels: np.ndarray, mask: np.ndarray | None, heat: np.ndarray | None, alt: str, width: int) -> Picture:
    """A slice with heat in colour over it and a thin line around the mask. JPEG: coloured PNGs are four times as large.

    Args:
        pixels: (side, side) uint8.
        mask: (side, side) bool; the line runs around it, not over it.
        heat: (any, any) in [0, 1], stretched over the slice; 0 leaves it as it is.
        alt: what the picture shows.
        width: on the page.
    """
    seen: np.ndarray = np.repeat(pixels[:, :, None].astype(np.float32), 3, axis=2)
    if heat is not None:
        stretched = Image.fromarray(np.float32(heat)).resize(pixels.shape[::-1], Image.Resampling.BILINEAR)
        share = OPAQUE * np.asarray(stretched)[:, :, None].clip(0, 1)
        seen = (1 - share) * seen + share * np.array(HEAT, np.float32)
    if mask is not None:
        seen[ndimage.binary_dilation(mask, iterations=2) & ~mask] = OUTLINE
    out = io.BytesIO()
    Image.fromarray(seen.round().astype(np.uint8)).save(out, "JPEG", quality=QUALITY, subsampling=0)
    return Picture(_data_uri(out.getvalue(), "jpeg"), alt, width)


def share(value: float) -> str:
    """A share in three digits."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def interval(value: float, low: float, high: float) -> str:
    """A share with its interval in brackets, where it has one."""
    if math.isnan(low + high):
        return share(value)
    return f"{value:.3f} ({low:.3f}{NBSP}to{NBSP}{high:.3f})"  # lines may break before the bracket only


def show(value: object) -> str:
    """Text as it is; numbers with a mark at the thousands, and four digits where they are no whole ones."""
    if isinstance(value, str):
        return value
    number = float(value)  # type: ignore[arg-type]
    return f"{number:,.0f}" if number.is_integer() and abs(number) < 1e15 else f"{number:,.4g}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names of files, patients and classes come from outside
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["show"] = show
    return environment


def _data_uri(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
