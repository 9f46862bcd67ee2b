"""Pages of a run: each one HTML file that holds all it shows, loads nothing and runs nothing."""

import base64
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image

DPI = 192  # of figures: twice what a page shows, for sharp screens and print
CSS_PIXELS = 96  # an inch


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


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
