"""A classifier as one ONNX file: raw pixels of any size and scale in, calibrated probabilities out."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

import sslbt
from sslbt.data.preprocess import Preprocess, resize
from sslbt.nn.heads import Classifier
from sslbt.nn.outlier import Outlier

OUTPUTS = ["probabilities", "confidence", "abstain", "strangeness", "features"]


class Deployed(nn.Module):
    """Preprocessing, classifier, calibration and doubt in one module: what is exported, and compared with."""

    def __init__(self, classifier: Classifier, outlier: Outlier, about: dict[str, Any]) -> None:
        super().__init__()
        self.preprocess = Preprocess()
        self.classifier = classifier
        self.outlier = outlier
        self.size: int = about["size"]
        self.temperature: float = about["temperature"]
        self.plausible_above: float = about["plausible_above"]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(batch, height, width) raw pixels to `OUTPUTS`.

        Returns:
            calibrated probabilities (batch, classes); confidence, the highest of them (batch,); whether to abstain,
            since not just one class is plausible or this is no brain MRI (batch,); strangeness, how little it is one
            (batch,); and what the encoder saw (batch, channels).
        """
        slices = self.preprocess(image)
        features = self.classifier.encoder.pooled(resize(slices, self.size))
        probabilities = (self.classifier.head(features) / self.temperature).softmax(dim=1)
        strangeness = self.outlier(slices)
        plausible = (probabilities >= self.plausible_above).sum(dim=1)
        abstain = (plausible != 1) | ~(strangeness <= self.outlier.above)
        return probabilities, probabilities.amax(dim=1), abstain, strangeness, features


def export(model: Deployed, about: dict[str, Any], path: Path) -> None:
    """Write `model` as ONNX with one input `image`, the outputs `OUTPUTS`, and the facts of `about` inside.

    The input is float32; integers up to 2^24 are exact in it.
    """
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
            output_names=OUTPUTS,
            dynamic_shapes=({0: batch, 1: height, 2: width},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # torch.onnx.export returns None only where it wrote a file itself
    exported = program.model_proto
    for node in exported.graph.node:
        node.ClearField("metadata_props")  # which line of which file on this machine it comes from
    onnx.helper.set_model_props(exported, metadata(about, float(model.outlier.above)))
    onnx.checker.check_model(exported)
    onnx.save_model(exported, path)


def metadata(about: dict[str, Any], strange_above: float) -> dict[str, str]:
    """What the file says of itself."""
    return {
        "classes": json.dumps(about["classes"]),
        "plausible_above": str(about["plausible_above"]),
        "guarantee": str(about["guarantee"]),
        "strange_above": str(strange_above),
        "run_id": about["run_id"],
        "pretrained": about["pretrained"],
        "version": sslbt.__version__,
        "code_version": about["code_version"],
        "data_digest": about["data_digest"],
        "split_hash": about["split_hash"],
        "temperature": str(about["temperature"]),
        "synthetic": str(about["synthetic"]).lower(),
        "license": "Apache-2.0; trained on slices of doi 10.6084/m9.figshare.1512427, CC BY 4.0; research use only",
    }
