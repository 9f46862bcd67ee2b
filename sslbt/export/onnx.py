"""A classifier as one ONNX file: raw pixels of any size and scale in, calibrated probabilities out."""

import copy
import json
import logging
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper
from onnx.utils import Extractor
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import sslbt
from sslbt.data.preprocess import Preprocess, resize
from sslbt.evaluation.saliency import layer_cam
from sslbt.nn.heads import Classifier
from sslbt.nn.outlier import Outlier

FORMAT = 1  # raise it when earlier code would misread the file, here and in `serve.session`
EXPLAIN = "explain"
SALIENCY = "saliency"
OUTPUTS = ["probabilities", "confidence", "abstain", "strangeness", "features", SALIENCY]


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
            (batch,); what the encoder saw (batch, channels); and what spoke for the likeliest class (batch, side,
            side) in [0, 1], a map of the square that `Preprocess` makes of the picture, padding included.
        """
        slices = self.preprocess(image)
        small = resize(slices, self.size)
        features = self.classifier.encoder.pooled(small)
        probabilities = (self.classifier.head(features) / self.temperature).softmax(dim=1)
        strangeness = self.outlier(slices)
        plausible = (probabilities >= self.plausible_above).sum(dim=1)
        abstain = (plausible != 1) | ~(strangeness <= self.outlier.above)
        saliency = layer_cam(self.classifier, small, probabilities.argmax(dim=1))
        return probabilities, probabilities.amax(dim=1), abstain, strangeness, features, saliency


def export(model: Deployed, about: dict[str, Any], path: Path) -> None:
    """Write `model` as ONNX with the input `image`, the outputs `OUTPUTS`, and the facts of `about` inside.

    The input is float32; integers up to 2^24 are exact in it. A second one, `explain`, may be left out: `saliency` then
    holds no map and costs nothing.
    """
    example = torch.rand(2, 300, 400)
    batch, height, width = (
        torch.export.Dim(name, min=2 if name == "batch" else 16) for name in ("batch", "height", "width")
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            folded(model.eval().cpu()),
            (example,),
            input_names=["image"],
            output_names=OUTPUTS,
            dynamic_shapes=({0: batch, 1: height, 2: width},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # torch.onnx.export returns None only where it wrote a file itself
    exported: ModelProto = program.model_proto
    for node in exported.graph.node:
        node.ClearField("metadata_props")  # which line of which file on this machine it comes from
    only_on_request(exported)
    helper.set_model_props(exported, metadata(about, float(model.outlier.above)))
    onnx.checker.check_model(exported)
    onnx.save_model(exported, path)


def folded(model: Deployed) -> Deployed:
    """A copy that answers the same, the encoder's batch normalisations made part of the convolutions before them.

    The exporter does so too, but with weights that saliency, which goes back through the same convolutions, could not
    share: the file would hold them twice.
    """
    model = copy.deepcopy(model)
    for layers in model.classifier.encoder.modules():
        if isinstance(layers, nn.Sequential):
            for place, (conv, norm) in enumerate(pairwise(list(layers))):
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    layers[place], layers[place + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return model


def only_on_request(model: ModelProto) -> None:
    """Put what only saliency needs behind the input `explain`, a boolean that is false unless given.

    Asking for other outputs alone does not spare it: ONNX Runtime computes a graph as a whole.
    """
    graph = model.graph
    others = Extractor(model).extract_model(["image"], [name for name in OUTPUTS if name != SALIENCY]).graph.node
    made = {name for node in others for name in node.output}
    own = [NodeProto.FromString(node.SerializeToString()) for node in graph.node if not made.issuperset(node.output)]
    (maps,) = (output for output in graph.output if output.name == SALIENCY)
    asked = helper.make_graph(own, "asked", [], [maps])
    side = [length.dim_value for length in maps.type.tensor_type.shape.dim[1:]]
    nothing = helper.make_tensor("nothing", TensorProto.FLOAT, [0, *side], [])
    no_maps = helper.make_tensor_value_info(SALIENCY, TensorProto.FLOAT, [0, *side])
    not_asked = helper.make_graph(
        [helper.make_node("Constant", [], [SALIENCY], value=nothing)], "not asked", [], [no_maps]
    )

    del graph.node[:], graph.value_info[:]
    graph.node.extend(others)
    graph.node.append(helper.make_node("If", [EXPLAIN], [SALIENCY], then_branch=asked, else_branch=not_asked))
    graph.input.append(helper.make_tensor_value_info(EXPLAIN, TensorProto.BOOL, []))
    graph.initializer.append(helper.make_tensor(EXPLAIN, TensorProto.BOOL, [], [False]))
    maps.type.tensor_type.shape.dim[0].dim_param = "asked"


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
        "format": str(FORMAT),
        "code_version": about["code_version"],
        "data_digest": about["data_digest"],
        "split_hash": about["split_hash"],
        "temperature": str(about["temperature"]),
        "synthetic": str(about["synthetic"]).lower(),
        "license": "Apache-2.0; slices of doi 10.6084/m9.figshare.1512427, if it saw any, CC BY 4.0; research use only",
    }
