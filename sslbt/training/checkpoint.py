"""Weights and what is known of them in one safetensors file: no pickle is ever read."""

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as deserialize
from safetensors.torch import save as serialize
from torch import Tensor, nn

from sslbt.errors import UserError
from sslbt.nn.encoder import Encoder
from sslbt.nn.heads import Classifier
from sslbt.nn.outlier import Outlier

FORMAT = 1  # raise it when earlier code would misread what is written; a file without a number is of format 1
OUTLIER = "outlier."  # what its tensors are called by
MOST_BYTES = 2**33  # of a file; the widest network with its optimiser has a third of it
WIDTHS = range(1, 257)  # as many as can be asked for
NUMBER = (int, float)
Facts = dict[str, type | tuple[type, ...]]
OF_ENCODER: Facts = {"seen": list, "way": str}  # what else must be known, and as what
OF_CLASSIFIER: Facts = OF_ENCODER | {
    "labels": str,
    "known_files": list,
    "pretrained": str,
    "temperature": NUMBER,
    "plausible_above": NUMBER,
    "guarantee": NUMBER,
    "validation_families": int,
}


def save(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write atomically: a kill leaves the old file or the new one, and at most a part that the next call replaces.

    Raises:
        OSError: it can't be written; names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    try:
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        partial.write_bytes(serialize(whole, {"about": json.dumps(about | {"format": FORMAT})}))
        os.replace(partial, path)
    except OSError as error:  # of a full disk, say, Python doesn't name the file
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of a checkpoint.

    Raises:
        UserError: the file is missing, damaged, not one of ours, or made by a newer version.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path}: too large for a checkpoint of sslbt; give what a training left")
        return parse(path.read_bytes(), path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such checkpoint") from error
    except OSError as error:
        raise UserError(f"{path}: damaged or not a checkpoint of sslbt ({error})") from error


def parse(content: bytes, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The same from a file's content; `path` is what errors call it."""
    try:
        tensors = deserialize(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        about = json.loads(header["__metadata__"]["about"])
        if not isinstance(about, dict):
            raise ValueError("what it says of itself is no list of facts")
        newer = about.pop("format", FORMAT) > FORMAT
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged or not a checkpoint of sslbt ({error})") from error
    if newer:
        raise UserError(f"{path}: made by a newer version of sslbt; update sslbt to read it")
    return tensors, about


def save_encoder(path: Path, encoder: Encoder, about: dict[str, Any]) -> None:
    """What pretraining leaves; `about` holds `size`, the side in pixels it was trained at, and `OF_ENCODER`.

    Raises:
        OSError: it can't be written; names the file.
    """
    save(path, encoder.state_dict(), about | {"kind": "encoder", "width": encoder.width})


def load_encoder(path: Path) -> tuple[Encoder, dict[str, Any]]:
    """The encoder of a checkpoint, also of a classifier's, and the facts that were saved with it.

    Raises:
        UserError: see `load`; also where a fact is missing, or the weights are another network's or not finite.
    """
    tensors, about = load(path)
    if about.get("kind") not in ("encoder", "classifier"):
        raise UserError(f"{path}: holds no encoder; give what a pretraining or a fine-tuning left")
    encoder = Encoder(_width(about, path))
    _check(about, OF_ENCODER, path)
    prefix = "encoder." if about["kind"] == "classifier" else ""
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    _fill(encoder, {name: tensor for name, tensor in own.items() if not name.startswith("head.")}, path)
    return encoder, about


def save_classifier(path: Path, model: Classifier, outlier: Outlier, about: dict[str, Any]) -> None:
    """What fine-tuning leaves; `about` holds `size`, `classes` and `OF_CLASSIFIER`.

    Raises:
        OSError: it can't be written; names the file.
    """
    strange = {OUTLIER + name: tensor for name, tensor in outlier.state_dict().items()}
    save(path, model.state_dict() | strange, about | {"kind": "classifier", "width": model.encoder.width})


def load_classifier(path: Path) -> tuple[Classifier, dict[str, Any]]:
    """The classifier of a checkpoint, ready to score.

    Raises:
        UserError: see `load_encoder`; also where the checkpoint holds an encoder only.
    """
    tensors, about = load(path)
    if about.get("kind") != "classifier":
        raise UserError(f"{path}: holds {about.get('kind', 'something else')}, no classifier; fine-tune it first")
    _check(about, OF_CLASSIFIER, path)
    classes = about.get("classes")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise UserError(f"{path}: doesn't name its classes; fine-tune it again")
    model = Classifier(Encoder(_width(about, path)), len(classes))
    _fill(model, {name: tensor for name, tensor in tensors.items() if not name.startswith(OUTLIER)}, path)
    return model.eval(), about


def load_outlier(path: Path) -> Outlier:
    """What a classifier's checkpoint knows of pictures that are no brain MRI.

    Raises:
        UserError: see `load`; also where it knows nothing of them.
    """
    outlier = Outlier()
    tensors, _ = load(path)
    own = {name.removeprefix(OUTLIER): tensor for name, tensor in tensors.items() if name.startswith(OUTLIER)}
    _fill(outlier, own, path)
    return outlier.eval()


def _width(about: dict[str, Any], path: Path) -> int:
    if about.get("width") not in WIDTHS or not isinstance(about.get("size"), int):
        raise UserError(f"{path}: doesn't say how its network is built; was it made by another program?")
    return int(about["width"])


def _check(about: dict[str, Any], needed: Facts, path: Path) -> None:
    lacking = [name for name, kind in needed.items() if not isinstance(about.get(name), kind)]
    if lacking:
        raise UserError(f"{path}: doesn't say {', '.join(lacking)}; made by another version? train it again")


def _fill(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise UserError(f"{path}: its weights are not all numbers; train it again")
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{path}: its weights do not fit; was it made by another version?") from error
