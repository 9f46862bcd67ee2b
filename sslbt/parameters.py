"""What the parameters of all entry points have: checks, presets, and one sentence for a mistake."""

import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sslbt.errors import UserError

PRESETS = tuple(sorted(p.stem for p in (Path(__file__).parent / "presets").glob("*.toml")))


def from_preset(description: str, **limits: Any) -> Any:
    """A parameter whose default stands in the preset."""
    return Field(description=f"{description} [the preset's]", **limits)


class Config(BaseModel):
    """Parameters of one entry point, checked and complete."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def build(cls, **given: Any) -> Self:
        """From what was given, the preset's values where nothing was, the defaults elsewhere.

        Raises:
            UserError: an unknown name or a value that doesn't fit.
        """
        for name in given:
            if name not in cls.model_fields:
                raise UserError(unknown(name, list(cls.model_fields)))
        try:
            return cls.model_validate(preset_values(cls, given.get("preset", "quick")) | given)
        except ValidationError as error:
            problem = error.errors()[0]
            name = str(problem["loc"][0])
            about = cls.model_fields[name]
            if problem["type"] == "missing":
                raise UserError(f"{name} is missing; give {about.description}") from None
            if problem["type"] == "string_pattern_mismatch":
                raise UserError(f"{name}={problem['input']}: give {about.description}") from None
            reason = problem["msg"].removeprefix("Value error, ")
            near = get_close_matches(str(problem["input"]), choices(about.annotation), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"{name}={problem['input']}: {reason[0].lower()}{reason[1:]}{hint}") from None


def unknown(name: str, known: list[str]) -> str:
    """A sentence for a name that doesn't exist, with the nearest that does."""
    near = get_close_matches(name, known, 1, 0.5)
    return f"{name}: no such parameter; " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}")


def choices(kind: Any) -> list[str]:
    """The values of a parameter that has a few only."""
    return list(get_args(kind)) if get_origin(kind) is Literal else []


def preset_values(config: type[Config], preset: str) -> dict[str, Any]:
    """What a preset file says of this entry point's parameters."""
    if "preset" not in config.model_fields or preset not in PRESETS:
        return {}
    values = tomllib.loads((Path(__file__).parent / "presets" / f"{preset}.toml").read_text())
    merged = values.get("all", {}) | values.get(stage_of(config), {})
    return {name: value for name, value in merged.items() if name in config.model_fields}


def stage_of(config: type[Config]) -> str:
    """The entry point's name: pretrain-encoder for PretrainEncoder."""
    return re.sub(r"(?<=.)(?=[A-Z])", "-", config.__name__).lower()
