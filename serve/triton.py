"""A classifier as Triton and KServe take it: a model repository, written from what the ONNX file itself says.

Source: Triton Inference Server, "Model Repository" and "Model Configuration"; KServe, "InferenceService" v1beta1.
"""

import filecmp
import json
import os
import re
import shutil
from pathlib import Path

import onnxruntime as ort

from serve.session import MAX_BATCH, Classifier
from sslbt.errors import UserError

CONFIG, LABELS, MODEL, RESOURCE = "config.pbtxt", "labels.txt", "model.onnx", "inference-service.yaml"
KINDS = {"tensor(float)": "TYPE_FP32", "tensor(bool)": "TYPE_BOOL"}  # all that the contract has
HEADER = f"""
platform: "onnxruntime_onnx"
max_batch_size: {MAX_BATCH}
# What has queued meanwhile goes through the network together, if it is of equal size.
dynamic_batching {{ }}
"""
SERVICE = """# kubectl apply -f {file}, once this folder is where storageUri says.
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {name}
spec:
  predictor:
    model:
      modelFormat:
        name: onnx
      protocolVersion: v2
      runtime: kserve-tritonserver
      storageUri: s3://BUCKET/FOLDER
"""


def write(model: Path, repository: Path, name: str) -> str:
    """Make a classifier the newest version of a model repository, which Triton serves next; gives its number.

    Nothing is overwritten: another classifier becomes the next version, the same as the newest stays that one.

    Raises:
        UserError: no classifier of sslbt, or the repository's model of this name takes or gives something else.
    """
    classifier = Classifier.load(model)
    files = {CONFIG: config(classifier, name), LABELS: "".join(f"{each}\n" for each in classifier.classes)}
    place = repository / name
    for file, text in files.items():
        if (place / file).exists() and (place / file).read_text() != text:
            raise UserError(f"{place / file} is of a model with other classes or outputs; choose another folder")
    versions = sorted(int(found.name) for found in place.glob("[1-9]*") if found.name.isdecimal())
    if versions and filecmp.cmp(model, place / str(versions[-1]) / MODEL, shallow=False):
        return str(versions[-1])
    number = str(versions[-1] + 1 if versions else 1)
    place.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        _put(place / file, text)
    _put(repository / RESOURCE, SERVICE.format(file=RESOURCE, name=_resource_name(name)))
    partial = place / f".{number}.partial"  # Triton reads folders that are numbers only
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    shutil.copyfile(model, partial / MODEL)
    os.replace(partial, place / number)
    return number


def config(classifier: Classifier, name: str) -> str:
    """The text of `config.pbtxt`: every tensor that has a row a picture."""
    (image,) = classifier.session.get_inputs()
    outputs = [own for own in classifier.session.get_outputs() if own.shape[0] == image.shape[0]]
    told = [_tensor("output", own, _of_classes(own)) for own in outputs]
    return f"name: {json.dumps(name)}{HEADER}{_tensor('input', image)}{''.join(told)}"


def _tensor(kind: str, own: ort.NodeArg, more: str = "") -> str:
    """Its entry; Triton leaves the batch out of shapes and has none without a dimension."""
    dims = [size if isinstance(size, int) else -1 for size in own.shape[1:]]
    shape = f"dims: {dims}" if dims else "dims: [1] reshape { shape: [] }"
    return f"{kind} {{ name: {json.dumps(own.name)} data_type: {KINDS[own.type]} {shape}{more} }}\n"


def _of_classes(own: ort.NodeArg) -> str:
    return f' label_filename: "{LABELS}"' if own.name == "probabilities" else ""


def _resource_name(name: str) -> str:
    """As Kubernetes takes it: small letters, digits and hyphens."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


def _put(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    os.replace(partial, path)
