"""Which version a registry address means, and its ONNX file, kept so that a service starts without asking first."""

import hashlib
import json
import os
import re
import uuid
from pathlib import Path

from sslbt.data.source import cache_folder, made, once
from sslbt.errors import UserError

REGISTRY = "models:/"  # how an address begins
FILE = "classifier.onnx"
DIGEST = "onnx_sha256"  # a tag of a version: of its file when it was registered
NAME = "brain-tumor-classifier"  # of a model that comes from elsewhere


def parts(address: str) -> tuple[str, str]:
    """Name of the model, and alias or number of the version.

    Raises:
        UserError: it is no registry address.
    """
    found = re.fullmatch(f"{REGISTRY}([^/@]+)[/@]([^/@]+)", address)
    if not found:
        raise UserError(f"{address}: no registry address; give models:/NAME@ALIAS or models:/NAME/NUMBER")
    return found[1], found[2]


def name_of(model: str) -> str:
    """What a model is called where it is served: as in the registry."""
    return parts(model)[0] if model.startswith(REGISTRY) else NAME


def latest(address: str) -> tuple[str, Path]:
    """Number and ONNX file of the version that an address means now; every version's file is fetched once.

    Raises:
        UserError: there is no such version, it is no classifier of sslbt, or its file is not the one registered.
    """
    import mlflow

    from sslbt.tracking import registry, store

    own = registry.version(*parts(address))
    number = str(own.version)
    key = _key(mlflow.get_registry_uri(), own.name, number, str(own.source))  # numbers begin anew for a deleted name

    def fetch(folder: Path) -> None:
        uri = f"{REGISTRY}{own.name}/{number}/artifacts/{FILE}"
        os.replace(store.download(uri, f"{address}: version {number} has no {FILE}", folder), folder / FILE)
        digest = hashlib.sha256((folder / FILE).read_bytes()).hexdigest()
        if own.tags.get(DIGEST, digest) != digest:  # earlier versions of sslbt kept none
            raise UserError(f"{address}: the {FILE} of version {number} is not the one registered; register it again")

    found = number, once(_folder() / key, fetch) / FILE
    if remembered(address) != found:  # a service asks every few seconds
        _remember(address, number, key)
    return found


def remembered(address: str) -> tuple[str, Path] | None:
    """What `latest` found last on this machine, without asking the registry.

    Raises:
        UserError: the file was changed since.
    """
    try:
        number, key = json.loads(_note(address).read_text())
        folder = _folder() / key
    except (OSError, ValueError, TypeError):
        return None
    return (number, folder / FILE) if (folder / FILE).is_file() and made(folder) else None


def _remember(address: str, number: str, key: str) -> None:
    partial = _note(address).with_suffix(f".{uuid.uuid4().hex}")  # services in two containers may both be process 1
    partial.write_text(json.dumps([number, key]))
    os.replace(partial, _note(address))


def _note(address: str) -> Path:
    """The same address means something else in another store; a store may be a file of the current folder."""
    stores = [os.environ.get(f"MLFLOW_{kind}_URI", "") for kind in ("TRACKING", "REGISTRY")]
    return _folder() / f"{_key(address, *stores, os.getcwd())}.json"


def _folder() -> Path:
    return cache_folder() / "served"


def _key(*facts: str) -> str:
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
