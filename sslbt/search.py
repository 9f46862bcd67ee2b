"""What a sweep searches: `learning_rate=1e-4..1e-2 log, temperature=0.1|0.2, width=16..64 step 16`."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from sslbt.errors import UserError

Value = bool | int | float | str
Built = TypeVar("Built")

RANGE = re.compile(r"(?P<low>[^\s|]+?)\s*\.\.\s*(?P<high>[^\s|]+)(?:\s+(?P<log>log)|\s+step\s+(?P<step>\S+))?")
HOW = "give a range such as 1e-4..1e-2 log or 16..64 step 16, or choices such as 0.1|0.2"


@dataclass(frozen=True)
class Range:
    """Every number from `low` to `high`, both included; by steps, or evenly in its logarithm."""

    low: float  # whole numbers stay int, here and below
    high: float
    step: float | None = None  # None: of a float, every value
    log: bool = False


@dataclass(frozen=True)
class Choices:
    """A few values without an order."""

    values: tuple[Value, ...]


Space = dict[str, Range | Choices]


def assignments(text: str, parameter: str) -> dict[str, str]:
    """Names and what stands behind their `=`, of a text such as `epochs=10, labels=123`.

    Raises:
        UserError: something without a value, or a name twice; `parameter` is what the text was given as.
    """
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = (word.strip() for word in part.partition("="))
        name = name.replace("-", "_")
        if not name or not value:
            raise UserError(f"{parameter}: {part!r} is not of the form name=value; separate several by commas")
        if name in found:
            raise UserError(f"{parameter}: {name} stands there twice; leave one out")
        found[name] = value
    return found


def read_space(text: str, build: Callable[..., Built]) -> Space:
    """The ranges and choices of a search, their values checked and of the right type.

    Args:
        text: as the person wrote it.
        build: makes a training's configuration of values; raises UserError where one doesn't fit.

    Raises:
        UserError: it can't be read, a name is unknown, or one of the values doesn't fit.
    """
    written = assignments(text, "search")
    if not written:
        raise UserError(f"search={text}: nothing is searched; {HOW}")
    ends = {name: _ends(name, value) for name, value in written.items()}

    def typed(name: str, value: str) -> Value:
        return getattr(build_either(build, ends, {name: value}), name)

    return {
        name: _range(name, value, match, typed)
        if (match := RANGE.fullmatch(value))
        else Choices(tuple(dict.fromkeys(typed(name, choice) for choice in ends[name])))
        for name, value in written.items()
    }


def build_either(build: Callable[..., Built], ends: Mapping[str, tuple], values: dict[str, str]) -> Built:
    """A configuration of these values with all others at their first end or, where that doesn't fit, at their last.

    Parameters may limit each other: `mask_min=0.1..0.4, mask_max=0.3..0.6` is good, though not at all its corners.
    """
    try:
        return build(**{name: own[0] for name, own in ends.items()} | values)
    except UserError as error:
        try:
            return build(**{name: own[-1] for name, own in ends.items()} | values)
        except UserError:
            raise error from None


def _ends(name: str, value: str) -> tuple[str, ...]:
    """The ends of a range, or all choices."""
    if match := RANGE.fullmatch(value):
        return match["low"], match["high"]
    choices = tuple(filter(None, (choice.strip() for choice in value.split("|"))))
    if ".." in value or len(choices) < 2:
        raise UserError(f"search: {name}={value} is neither a range nor choices; {HOW}; one value belongs into fixed")
    return choices


def _range(name: str, value: str, match: re.Match[str], typed: Callable[[str, str], Value]) -> Range:
    low, high = typed(name, match["low"]), typed(name, match["high"])
    if isinstance(low, bool | str) or isinstance(high, bool | str):
        raise UserError(f"search: {name}={value}: {name} is no number; give choices such as {match['low']}|...")
    if not low < high:
        raise UserError(f"search: {name}={value}: the first end must be below the second")
    if match["log"] and low <= 0:
        raise UserError(f"search: {name}={value}: the logarithm needs a first end above 0")
    if isinstance(low, float) and match["step"] is None:
        return Range(low, high, log=bool(match["log"]))
    try:
        step = type(low)(match["step"] or 1)
    except ValueError:
        raise UserError(f"search: {name}={value}: the step must be a number, as in 16..64 step 16") from None
    if not 0 < step <= high - low:
        raise UserError(f"search: {name}={value}: the step must be above 0 and fit between the ends")
    try:
        typed(name, f"{low + step:.12g}")  # of a multiple of 8, 16..64 step 4 has good ends only
    except UserError as error:
        raise UserError(f"search: {name}={value} comes to {error}") from None
    return Range(low, low + int((high - low) / step + 1e-9) * step, step, log=bool(match["log"]))
