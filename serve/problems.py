"""How the service says what was wrong: one JSON object with a sentence in it."""

from http import HTTPStatus

from fastapi import HTTPException
from fastapi.responses import JSONResponse


def problem(path: str, refusal: HTTPException) -> JSONResponse:
    """The answer to a request for `path` that is refused; the Open Inference Protocol wants its sentence as `error`."""
    status = HTTPStatus(refusal.status_code)
    told = {"error_code": status.name, "message": refusal.detail}
    if path.startswith("/v2"):
        told = {"error": refusal.detail}
    return JSONResponse(told, status, refusal.headers)
