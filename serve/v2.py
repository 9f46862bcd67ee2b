"""The Open Inference Protocol over HTTP, which Triton's and KServe's clients speak."""

from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter, HTTPException, Request, Response

import sslbt
from serve.current import Current, Model
from serve.pictures import Picture, from_value
from serve.pool import Pool
from serve.schema import INFER
from serve.session import Row, Scores
from serve.tensors import HEADER, IMAGE, KINDS, answer, asked

ABSENT = -1.0  # what probabilities and confidence are where a file holds no picture; NaN is no JSON


def router(current: Current, pool: Pool) -> APIRouter:
    """The routes below /v2."""
    routes = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

    def known(name: str, version: str | None = None) -> Model:
        model = current.model
        if name != model.name or version not in (None, model.version):
            raise HTTPException(404, f"no model {name} {version or ''}; there is {model.name} {model.version}")
        return model

    @routes.get("")
    async def server() -> dict[str, Any]:
        return {"name": "sslbt", "version": sslbt.__version__, "extensions": ["binary_tensor_data"]}

    @routes.get("/health/live")
    @routes.get("/health/ready")
    async def health() -> Response:
        return Response()

    @routes.get("/models/{name}")
    @routes.get("/models/{name}/versions/{version}")
    async def metadata(name: str, version: str | None = None) -> dict[str, Any]:
        return described(known(name, version))

    @routes.get("/models/{name}/ready")
    @routes.get("/models/{name}/versions/{version}/ready")
    async def ready(name: str, version: str | None = None) -> Response:
        known(name, version)
        return Response()

    @routes.post("/models/{name}/infer", response_class=Response, openapi_extra=INFER)
    @routes.post("/models/{name}/versions/{version}/infer", response_class=Response, openapi_extra=INFER)
    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        model = known(name, version)
        given = asked(await request.body(), request.headers.get(HEADER))
        pool.check(given.count)  # before anything is made of each
        pictures = [partial(from_value, cell, f"image {number}") for number, cell in enumerate(given.cells())]
        wanted = given.wanted
        del given  # numbers in lists take many times the memory that they take in pictures, which may wait
        found = await pool.score(model.classifier, pictures, _outputs)
        outputs = {key: np.stack([one[key] for one in found]) for key in found[0]} if found else _no_outputs(model)
        body, headers = answer({"model_name": model.name, "model_version": model.version}, wanted, outputs)
        return Response(body, headers=headers)

    return routes


def described(model: Model) -> dict[str, Any]:
    """The protocol's metadata of a model."""
    classes = len(model.classifier.classes)
    outputs = [
        ("label", "BYTES", [-1]),
        ("probabilities", "FP32", [-1, classes]),
        ("confidence", "FP32", [-1]),
        ("abstain", "BOOL", [-1]),
        ("reason", "BYTES", [-1]),
    ]
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": IMAGE, "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in outputs],
        "parameters": {"classes": ",".join(model.classifier.classes), "run_id": model.classifier.metadata["run_id"]},
    }


def _no_outputs(model: Model) -> dict[str, np.ndarray]:
    told = described(model)["outputs"]
    return {one["name"]: np.empty([0, *one["shape"][1:]], KINDS.get(one["datatype"], object)) for one in told}


def _outputs(picture: Picture, row: Row, scores: Scores | None) -> dict[str, Any]:
    shares = [row[key] for key in row if key.startswith("p_")]
    return {
        "label": np.array(row["label"] or "", object),
        "probabilities": np.array([ABSENT if share is None else share for share in shares], np.float32),
        "confidence": np.float32(ABSENT if row["confidence"] is None else row["confidence"]),
        "abstain": np.bool_(row["abstain"]),
        "reason": np.array(row["reason"], object),
    }
