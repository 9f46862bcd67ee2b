"""The online service: files, MLflow's JSON or tensors in, one row of scores a picture out, and a page to try it."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from anyio import to_thread
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException as StarletteHTTPException

import sslbt
from serve import uploads, v2
from serve.bodies import parsed
from serve.browsers import HEADERS, Browsers, policy
from serve.current import Current
from serve.invocations import images
from serve.limits import MAX_BYTES, Limits
from serve.metrics import Counted, Metrics
from serve.pictures import from_bytes, later
from serve.pool import Pool
from serve.problems import problem
from serve.schema import INVOCATIONS, PREDICT
from serve.session import Classifier, Row, Scores
from serve.shown import NO_DRIFT, describe, drift_of, for_people
from sslbt.errors import UserError

PAGE = Path(__file__).with_name("page.html")
ABOUT = "Scores of MRI slices. Research software: it must not be used to diagnose anybody."
OFFLINE: dict[str, Any] = {  # what FastAPIOffline brings along, so that /docs asks no other host
    "swagger_js_url": "/static-offline-docs/swagger-ui-bundle.js",
    "swagger_css_url": "/static-offline-docs/swagger-ui.css",
    "swagger_favicon_url": "/static-offline-docs/favicon.png",
}


def create_app(
    current: Current, key: str = "", max_bytes: int = MAX_BYTES, names: Collection[str] | None = None
) -> FastAPI:
    """The service around a model.

    A picture that can't be read gives a row with its reason. Refusals and faults of ours (500) are
    `{"error_code": ..., "message": sentence}`, under /v2 `{"error": sentence}`; `limits.Limits` and
    `browsers.Browsers` have the codes.

    Args:
        current: who answers.
        key: what callers have to send as `Authorization: Bearer KEY`; empty for none.
        max_bytes: of a request's body.
        names: that it may be called by besides addresses and localhost; None for any, which only a key makes safe.
    """

    @asynccontextmanager
    async def until_the_end(app: FastAPI) -> AsyncIterator[None]:
        yield
        await to_thread.run_sync(pool.close)
        await to_thread.run_sync(current.close)

    app = FastAPIOffline(
        title="sslbt",
        version=sslbt.__version__,
        description=ABOUT,
        docs_url=None,
        redoc_url=None,
        lifespan=until_the_end,
    )
    metrics = Metrics(lambda: pool.waiting)
    page = PAGE.read_text(encoding="utf-8")

    def saw(asked: Classifier, rows: list[Row], scores: Scores) -> None:
        metrics.saw(rows)
        model = current.model
        if model.drift and model.classifier is asked:
            model.drift.add(scores)

    pool = Pool(saw)

    @app.post("/predict", openapi_extra=PREDICT)
    async def predict(request: Request, preview: bool = False, saliency: bool = False) -> JSONResponse:
        """Scores of one or several files; `preview` and `saliency` add pictures as `data:` addresses."""
        model = current.model
        files = await uploads.files(request)
        saliency = saliency and model.classifier.explains
        told = partial(for_people, preview=preview, saliency=saliency)
        pictures = [partial(from_bytes, data, name) for name, data in files]
        rows = await pool.score(model.classifier, pictures, told, saliency)
        named = [{"file": name, **row} for (name, _), row in zip(files, rows, strict=True)]
        return JSONResponse({"model": describe(model), "predictions": named})

    @app.post("/invocations", openapi_extra=INVOCATIONS)
    async def invocations(request: Request) -> JSONResponse:
        """MLflow's schema: a column `image` of encoded files as base64, or pixels."""
        cells = images(parsed(await request.body()))
        pool.check(len(cells))  # before anything is made of each
        pictures = [later(cell, f"row {number}") for number, cell in enumerate(cells)]
        del cells  # the lists among them
        rows = await pool.score(current.model.classifier, pictures, lambda picture, row, scores: row)
        return JSONResponse({"predictions": rows})

    @app.get("/health")
    @app.get("/ping", include_in_schema=False)
    @app.get("/ready")  # the classifier was loaded and tried before the service could listen
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/version")
    async def version() -> dict[str, Any]:
        """What is known of the model in service."""
        return describe(current.model)

    @app.get("/drift")
    async def drift() -> dict[str, Any]:
        """Are the last pictures like those that the model was judged on?"""
        model = current.model
        return {"model_version": model.version, **(drift_of(model.drift) if model.drift else NO_DRIFT)}

    @app.get("/metrics")
    async def counted() -> Response:
        """For Prometheus."""
        return Response(metrics.text(current.model), media_type="text/plain; version=0.0.4")

    @app.get("/", include_in_schema=False)
    async def show() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy(page)})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        shown = get_swagger_ui_html(openapi_url="/openapi.json", title="sslbt", **OFFLINE)
        allowed = policy(bytes(shown.body).decode(), "'self'", "'self' 'unsafe-inline'", "'self' data:")
        shown.headers["Content-Security-Policy"] = allowed
        return shown

    @app.exception_handler(UserError)
    async def misused(request: Request, error: UserError) -> JSONResponse:
        return problem(request.url.path, HTTPException(HTTPStatus.BAD_REQUEST, str(error)))

    @app.exception_handler(StarletteHTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        return problem(request.url.path, error)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        # Starlette answers this outside of all middleware, so that `Browsers` would add nothing.
        return problem(request.url.path, HTTPException(500, "the service failed; its log says why", HEADERS))

    app.include_router(v2.router(current, pool))
    app.add_middleware(Limits, check=pool.check, key=key, max_bytes=max_bytes)
    app.add_middleware(Browsers, names=names)
    app.add_middleware(Counted, metrics=metrics)
    return app
