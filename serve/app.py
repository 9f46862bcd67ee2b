"""The online service: files or MLflow's JSON in, one row of scores a picture out, and a page to try it."""

import base64
import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import uvicorn
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from serve import uploads
from serve.invocations import images
from serve.pictures import Picture, from_bytes, from_value
from serve.preview import data_url
from serve.session import Classifier
from sslbt.errors import UserError

MAX_BYTES = 64 * 2**20
PAGE = Path(__file__).with_name("page.html")

Result = TypeVar("Result")


def create_app(classifier: Classifier, max_bytes: int = MAX_BYTES) -> FastAPI:
    """The service around a classifier; a request's body may have up to `max_bytes`.

    A picture that can't be read gives a row with its reason. A request that can't be understood gives 400, one too
    large 413; either way, and after a fault of ours (500), the body is `{"error_code": ..., "message": sentence}`.
    """
    app = FastAPI(title="sslbt", docs_url=None, redoc_url=None, openapi_url=None)  # its docs load scripts from afar
    computing = CapacityLimiter(os.cpu_count() or 1)
    model = describe(classifier)
    page, policy = _page()

    async def off_the_loop(work: Callable[..., Result], *arguments: Any) -> Result:
        return await to_thread.run_sync(work, *arguments, limiter=computing)

    @app.post("/predict")
    async def predict(request: Request) -> JSONResponse:
        files = await uploads.files(request, max_bytes)
        preview = request.query_params.get("preview") == "1"
        return JSONResponse(
            {"model": model, "predictions": await off_the_loop(score_files, classifier, files, preview)}
        )

    @app.post("/invocations")
    async def invocations(request: Request) -> JSONResponse:
        body = await uploads.body(request, max_bytes)
        return JSONResponse({"predictions": await off_the_loop(score_json, classifier, body)})

    @app.get("/health")
    @app.get("/ping")
    @app.get("/ready")  # the classifier was loaded and tried before the service could listen
    async def health() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @app.get("/version")
    async def version() -> JSONResponse:
        return JSONResponse(model)

    @app.get("/")
    async def show() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"})

    @app.exception_handler(UserError)
    async def misused(request: Request, error: UserError) -> JSONResponse:
        return _problem(HTTPStatus.BAD_REQUEST, str(error))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        return _problem(HTTPStatus(error.status_code), error.detail, error.headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the service failed; its log says why")

    return app


def run(app: FastAPI, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve until SIGINT or SIGTERM, then finish the requests under way; port 0 takes any free one.

    Raises:
        UserError: the address can't be listened on.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise UserError(f"{host}:{port}: can't listen there ({error}); choose another host or port") from error
    with listener:
        print(f"Serving on http://{host}:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(app, timeout_graceful_shutdown=30)).run(sockets=[listener])


def describe(classifier: Classifier) -> dict[str, Any]:
    """What a caller may know of the model: classes, thresholds, run, version, data."""
    known = ("run_id", "version", "data_digest", "split_hash")
    return {
        **{key: value for key, value in classifier.metadata.items() if key in known},
        "classes": classifier.classes,
        "plausible_above": classifier.plausible_above,
        "guarantee": classifier.guarantee,
        "synthetic": classifier.metadata.get("synthetic") == "true",
    }


def score_files(classifier: Classifier, files: list[tuple[str, bytes]], preview: bool) -> list[dict[str, Any]]:
    """One row a file: `file`, the scores and, if asked for, `preview`, a small PNG (None where unreadable)."""
    extras: list[dict[str, Any]] = []

    def pictures() -> Iterator[Picture]:
        for name, data in files:
            picture = from_bytes(data, name)
            shown = data_url(picture) if preview and isinstance(picture, np.ndarray) else None
            extras.append({"preview": shown} if preview else {})
            yield picture

    rows = list(classifier.rows(pictures()))
    return [{"file": name, **row, **extra} for (name, _), row, extra in zip(files, rows, extras, strict=True)]


def score_json(classifier: Classifier, body: bytes) -> list[dict[str, Any]]:
    """One row a picture of an MLflow request."""
    try:
        cells = images(json.loads(body))
    except (ValueError, RecursionError) as error:
        raise UserError(f"the body is no JSON ({error})") from error
    return list(classifier.rows(from_value(cell, f"row {number}") for number, cell in enumerate(cells)))


def _page() -> tuple[str, str]:
    """The page and a policy under which a browser runs nothing but the page's own script and style."""
    page = PAGE.read_text(encoding="utf-8")
    own = {tag: _hash(page.split(f"<{tag}>")[1].split(f"</{tag}>")[0]) for tag in ("script", "style")}
    policy = f"default-src 'none'; script-src {own['script']}; style-src {own['style']}; img-src data:; "
    return page, policy + "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _problem(status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error_code": status.name, "message": message}, status, headers)
