"""Write the weights that come with sslbt: encoder and classifier in half precision, and the classifier as ONNX.

    python benchmarks/release.py DATA ENCODER CLASSIFIER [--folder FOLDER]

ENCODER and CLASSIFIER are checkpoints, the second fine-tuned from the first; DATA is what they learnt from. Every slice
of it is asked twice: the rounded classifier has to answer as the one given, the ONNX file as the rounded one, which
gets a reference for drift from the patients that validate. What both have seen stays in them, so that nobody judges
them on it; paths of this machine don't.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ending import in_a_sentence
from scipy.special import softmax
from torch import Tensor

from sslbt.data.cache import Cache, prepare
from sslbt.data.source import Source
from sslbt.data.splits import make_split
from sslbt.errors import UserError
from sslbt.evaluation.features import logits
from sslbt.export.onnx import Deployed, export
from sslbt.export.parity import check
from sslbt.steps.reference import store_reference
from sslbt.steps.register import raw_slices
from sslbt.tracking.models import CLASSIFIER, ENCODER, ONNX, RELEASED, RELEASED_FOLDER
from sslbt.training import checkpoint

TOLERANCE = 5e-3  # on probabilities; half precision keeps three digits of a weight
MOST = 25 * 2**20  # bytes that a clone of the repository carries for them
BATCH = 1024  # slices in memory at a time


def release(source: Source, encoder: Path, classifier: Path, folder: Path) -> None:
    """Write the three files.

    Raises:
        UserError: the classifier was not made from this encoder, answers otherwise when rounded, or all is too large.
    """
    weights, about = checkpoint.load(classifier)
    bare, about_encoder = checkpoint.load(encoder)
    if not {tuple(own) for own in about_encoder["seen"]} <= {tuple(own) for own in about["seen"]}:
        raise UserError(f"{classifier}: has not seen all that {encoder} has; give the encoder it was fine-tuned from")
    # Whoever starts from this encoder may take what the classifier knows too, so that it has seen as much.
    to_encoder, to_classifier, to_onnx = (folder / Path(name).name for name in (ENCODER, CLASSIFIER, ONNX))
    checkpoint.save(to_encoder, halved(bare), published(about_encoder) | {"seen": about["seen"]})
    checkpoint.save(to_classifier, halved(weights), published(about) | {"pretrained": RELEASED})

    cache = prepare(source)
    apart = float(np.abs(answers(classifier, cache) - answers(to_classifier, cache)).max())
    print(f"rounded: probabilities at most {apart:.1e} from those before, over {len(cache.table)} slices")
    if not apart <= TOLERANCE:
        raise UserError(f"{classifier}: rounded to half precision it answers up to {apart:.1e} otherwise; not released")

    model, about = checkpoint.load_classifier(to_classifier)
    deployed = Deployed(model, checkpoint.load_outlier(to_classifier), about)
    export(deployed, about, to_onnx)
    split = make_split(cache.table, about["split"], cache.classes)
    store_reference(to_onnx, about, cache, split, partial(raw_slices, source))
    raw = (pixels for _, pixels in raw_slices(source, cache.table))
    parity = check(deployed, to_onnx, raw)
    print(f"ONNX: probabilities at most {parity.difference:.1e} from torch, over {parity.slices} slices")

    size = sum(file.stat().st_size for file in (to_encoder, to_classifier, to_onnx))
    if size > MOST:
        raise UserError(f"{folder}: {size:,} bytes, at most {MOST:,} are to be released; take a narrower encoder")
    print(f"{folder}: {size:,} bytes")


def halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in half precision; vectors, which are little, stay: squared activations may not fit into it."""
    return {name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in tensors.items()}


def published(about: dict[str, Any]) -> dict[str, Any]:
    """What anybody may know of a checkpoint: of a path its last part."""
    return {name: Path(value).name if isinstance(value, str) else value for name, value in about.items()}


def answers(file: Path, cache: Cache) -> np.ndarray:
    """Probabilities of a classifier's checkpoint for all slices, (slices, classes)."""
    model, about = checkpoint.load_classifier(file)
    rows = np.arange(len(cache.table))
    parts = np.array_split(rows, -(-len(rows) // BATCH))
    asked = np.concatenate([logits(model, cache.load(part, about["size"])) for part in parts])
    return softmax(asked / about["temperature"], axis=1)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DATA")
    parser.add_argument("encoder", metavar="ENCODER", type=Path)
    parser.add_argument("classifier", metavar="CLASSIFIER", type=Path)
    parser.add_argument("--folder", default=RELEASED_FOLDER, type=Path)
    given = parser.parse_args(arguments)
    release(Source(given.data), given.encoder, given.classifier, given.folder)


if __name__ == "__main__":
    with in_a_sentence():
        main()
