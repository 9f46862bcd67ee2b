"""What Prometheus may ask of the service."""

import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.current import Model
from serve.session import Row

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
SHARES = tuple(round(0.05 * step, 2) for step in range(7, 20))  # of confidence; three classes begin at a third


class Metrics:
    """Counters of one service, in a registry of their own.

    Args:
        waiting: how many pictures wait now.
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("sslbt_requests", "Requests answered", ["route", "status"], **own)
        self.seconds = Histogram("sslbt_request_seconds", "From headers to answer", ["route"], buckets=SECONDS, **own)
        self.together = Histogram("sslbt_batch_pictures", "Scored together", buckets=(1, 2, 3, 4, 8, 16), **own)
        self.classes = Counter("sslbt_pictures", "Pictures by class found", ["label"], **own)
        self.abstained = Counter("sslbt_abstained", "Pictures without an answer", **own)
        self.unreadable = Counter("sslbt_unreadable", "Files without a picture", **own)
        self.confidence = Histogram("sslbt_confidence", "Of the class found", buckets=SHARES, **own)
        self.model = Gauge("sslbt_model_info", "1 for the model in service", ["name", "version", "run_id"], **own)
        self.drift = Gauge("sslbt_drift", "Beside its limit: above 1 is an alarm", ["quantity"], **own)
        self.drift_slices = Gauge("sslbt_drift_slices", "The last pictures, which drift is about", **own)
        Gauge("sslbt_waiting_pictures", "Not yet begun", **own).set_function(waiting)

    def saw(self, rows: list[Row]) -> None:
        """Count a batch."""
        self.together.observe(len(rows))
        for row in rows:
            if row["label"] is None:
                self.unreadable.inc()
                continue
            self.classes.labels(row["label"]).inc()
            self.confidence.observe(row["confidence"])
            if row["abstain"]:
                self.abstained.inc()

    def text(self, model: Model) -> bytes:
        """All of them, as Prometheus reads them, while this model is in service."""
        self.model.clear()
        self.model.labels(model.name, model.version, model.classifier.metadata["run_id"]).set(1)
        self.drift.clear()
        self.drift_slices.set(0)
        if model.drift:
            report = model.drift.report()
            self.drift_slices.set(report.slices)
            for name, quantity in report.quantities.items():
                self.drift.labels(name).set(quantity.ratio)
        return generate_latest(self.registry)


class Counted:
    """ASGI middleware that counts and times requests by route; what no route serves counts as one."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - began)
