"""How the service says what was wrong: one JSON object with a sentence in it."""

from http import HTTPStatus

from fastapi import HTTPException
from fastapi.responses import JSONResponse


def problem(path: str, refusal: HTTPException) -> JSONResponse:
    """The answer to a request for `path` that is refused; the Open Inference Protocol wants its sentence as `error`."""
    status = HTTPStatus(refusal.status_code)
    sentence = refusal.detail.encode("utf-8", "backslashreplace").decode()  # it may quote half a pair of surrogates
    told = {"error_code": status.name, "message": sentence}
    if path.startswith("/v2"):
        told = {"error": sentence}
    return JSONResponse(told, status, refusal.headers)
