"""A classifier as one ONNX file: raw pixels of any size and scale in, calibrated probabilities out."""

import json
import logging
import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

import sslbt
from sslbt.data.preprocess import Preprocess, resize
from sslbt.nn.heads import Classifier

ABSTAIN_BELOW = 0.5  # no class has the majority


class Deployed(nn.Module):
    """Preprocessing, classifier and calibration in one module: what is exported, and what it is compared with."""

    def __init__(self, classifier: Classifier, size: int, temperature: float) -> None:
        super().__init__()
        self.preprocess = Preprocess()
        self.classifier = classifier
        self.size = size
        self.temperature = temperature

    def forward(self, image: Tensor) -> Tensor:
        """(batch, height, width) raw pixels to calibrated probabilities (batch, classes)."""
        logits = self.classifier(resize(self.preprocess(image), self.size))
        return (logits / self.temperature).softmax(dim=1)


def export(model: Deployed, about: dict, path: Path) -> None:
    """Write `model` as ONNX with one input `image`, one output `probabilities`, and the facts of `about` inside."""
    example = torch.rand(2, 300, 400)
    batch, height, width = (
        torch.export.Dim(name, min=2 if name == "batch" else 16) for name in ("batch", "height", "width")
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            model.eval().cpu(),
            (example,),
            input_names=["image"],
            output_names=["probabilities"],
            dynamic_shapes=({0: batch, 1: height, 2: width},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # torch.onnx.export returns None only where it wrote a file itself
    exported = program.model_proto
    onnx.helper.set_model_props(exported, metadata(about))
    onnx.checker.check_model(exported)
    onnx.save_model(exported, path)


def metadata(about: dict) -> dict[str, str]:
    """What the file says of itself."""
    return {
        "classes": json.dumps(about["classes"]),
        "abstain_below": str(ABSTAIN_BELOW),
        "run_id": about["run_id"],
        "version": sslbt.__version__,
        "code_version": about["code_version"],
        "data_digest": about["data_digest"],
        "split_hash": about["split_hash"],
        "temperature": str(about["temperature"]),
        "synthetic": str(about["synthetic"]).lower(),
        "license": "Apache-2.0; trained on slices of doi 10.6084/m9.figshare.1512427, CC BY 4.0; research use only",
    }
