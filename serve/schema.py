"""What OpenAPI says of bodies that are read by hand, since they are large or come in several forms."""

from serve.invocations import ONE_OF_FORMS
from serve.tensors import IMAGE

_SCORE = {"type": ["number", "null"]}
_ROW = {
    "type": "object",
    "description": "p_CLASS for every class; null and a reason where the picture can't be read",
    "properties": {
        "label": {"type": ["string", "null"]},
        "confidence": _SCORE,
        "abstain": {"type": "boolean"},
        "reason": {"type": "string"},
    },
    "additionalProperties": _SCORE,
}
_ROWS = {"type": "array", "items": _ROW}
_PROBLEM = {
    "type": "object",
    "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
}
_REFUSALS = {
    "400": "not understood",
    "401": "without the key",
    "403": "a page of another origin asked",
    "408": "came too slowly",
    "413": "too large",
    "421": "under a name that is not the service's",
    "503": "busy: try again after the seconds of Retry-After",
}


def _responses(properties: dict) -> dict:
    answer = {"type": "object", "properties": properties}
    refusals = {
        code: {"description": why, "content": {"application/json": {"schema": _PROBLEM}}}
        for code, why in _REFUSALS.items()
    }
    return {"200": {"description": "scores", "content": {"application/json": {"schema": answer}}}, **refusals}


PREDICT = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    },
    "responses": _responses({"model": {"type": "object"}, "predictions": _ROWS}),
}
INVOCATIONS = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "object", "description": ONE_OF_FORMS},
                "example": {"dataframe_split": {"columns": ["image"], "data": [["iVBORw0..."]]}},
            }
        },
    },
    "responses": _responses({"predictions": _ROWS}),
}
INFER = {
    "requestBody": {
        "description": f"`{IMAGE}`: encoded files as BYTES (base64 in JSON), or pixels of any number type",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["inputs"],
                    "properties": {
                        "id": {"type": "string"},
                        "inputs": {"type": "array", "items": {"type": "object"}, "minItems": 1, "maxItems": 1},
                        "outputs": {"type": "array", "items": {"type": "object"}},
                    },
                },
                "example": {"inputs": [{"name": IMAGE, "datatype": "BYTES", "shape": [1], "data": ["iVBORw0..."]}]},
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
        "required": True,
    }
}
