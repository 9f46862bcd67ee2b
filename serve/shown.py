"""What `/predict` and `/version` tell a person: rows with a status and pictures, and facts of the model."""

from typing import Any

import serve.preview as small
from serve.current import Model
from serve.pictures import Picture
from serve.session import STRANGER, Row, Scores
from sslbt.errors import UserError

KNOWN = ("run_id", "version", "data_digest", "split_hash")


def describe(model: Model) -> dict[str, Any]:
    """What a caller may know of the model: classes, thresholds, run, version, data."""
    classifier = model.classifier
    return {
        **{key: value for key, value in classifier.metadata.items() if key in KNOWN},
        "name": model.name,
        "model_version": model.version,
        "classes": classifier.classes,
        "plausible_above": classifier.plausible_above,
        "guarantee": classifier.guarantee,
        "synthetic": classifier.metadata.get("synthetic") == "true",
        "explains": classifier.explains,
    }


def for_people(picture: Picture, row: Row, scores: Scores | None, preview: bool, saliency: bool) -> dict[str, Any]:
    """A row with its status and, if asked for, small PNG pictures as `data:` addresses (None where unreadable)."""
    shown: dict[str, Any] = {"status": status(row)}
    readable = None if isinstance(picture, UserError) else picture
    if preview:
        shown["preview"] = None if readable is None else small.data_url(readable)
    if saliency:
        maps = scores.saliency if scores else None
        shown["saliency"] = None if readable is None or maps is None else small.overlay_url(readable, maps[0])
    return row | shown


def status(row: Row) -> str:
    """One word for what a row says: answered, unsure, stranger or unreadable."""
    if row["label"] is None:
        return "unreadable"
    if row["reason"].startswith(STRANGER):
        return "stranger"
    return "unsure" if row["abstain"] else "answered"
