"""What `/predict`, `/version` and `/drift` tell a person: rows with a status and pictures, the model, its drift."""

from typing import Any

from serve.current import Model
from serve.drift import Drift
from serve.pictures import Picture
from serve.preview import data_url, overlay_url
from serve.session import STRANGER, Row, Scores
from sslbt.errors import UserError

NO_DRIFT = {"sentence": "This model's file holds no reference; export it again to be told of drift."}
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
        shown["preview"] = None if readable is None else data_url(readable)
    if saliency:
        maps = scores.saliency if scores else None
        shown["saliency"] = None if readable is None or maps is None else overlay_url(readable, maps[0])
    return row | shown


def drift_of(drift: Drift) -> dict[str, Any]:
    """A sentence, the figures, and of each class its share among the last pictures and in the reference."""
    report = drift.report()
    shares = {name: {"now": now, "reference": before} for name, (now, before) in report.shares.items()}
    return {"sentence": report.sentence(), **report.as_metrics(), "shares": shares}


def status(row: Row) -> str:
    """One word for what a row says: answered, unsure, stranger or unreadable."""
    if row["label"] is None:
        return "unreadable"
    if row["reason"].startswith(STRANGER):
        return "stranger"
    return "unsure" if row["abstain"] else "answered"
