"""What a request may cost before anything is computed for it: whether it may ask at all, its size, time and memory."""

import asyncio
import hmac
import time
from collections.abc import Callable

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.problems import problem

MAX_BYTES = 64 * 2**20  # of one body
MAX_HELD = 512 * 2**20  # of all bodies under way
BODY_SECONDS = 60.0  # that a body may take to arrive
OPEN = frozenset({"/", "/health", "/ping", "/ready", "/v2/health/live", "/v2/health/ready"})  # need no key


class Limits:
    """ASGI middleware: 401 without the key, 408 for a body that comes too slowly, 413 for one too large, 503 if busy.

    Args:
        check: raises `HTTPException` if there is no room to compute anything: a body is then not even read.
        key: what callers have to send as `Authorization: Bearer KEY`; empty for none.
        max_bytes: of one body.
        max_held: of all bodies of requests under way, which is what they take of memory.
    """

    def __init__(
        self,
        app: ASGIApp,
        check: Callable[[], None],
        key: str = "",
        max_bytes: int = MAX_BYTES,
        max_held: int = MAX_HELD,
    ) -> None:
        self.app, self.check, self.key = app, check, key
        self.max_bytes, self.max_held = max_bytes, max_held
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        try:
            self._before(scope)
        except HTTPException as refusal:
            return await problem(scope["path"], refusal)(scope, receive, send)

        until, own, whole = time.monotonic() + BODY_SECONDS, 0, False

        async def limited() -> Message:
            nonlocal own, whole
            if whole:
                return await receive()
            try:
                async with asyncio.timeout(until - time.monotonic()):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(408, f"the request took longer than {BODY_SECONDS:g} s to arrive") from error
            whole = not message.get("more_body", False)
            part = len(message.get("body", b""))
            own, self.held = own + part, self.held + part
            self._refuse_large(own)
            if self.held > self.max_held:
                raise HTTPException(503, "too much is being sent at once; try again", {"Retry-After": "1"})
            return message

        try:
            await self.app(scope, limited, send)
        finally:
            self.held -= own

    def _before(self, scope: Scope) -> None:
        """Refuse what need not be read."""
        headers = dict(scope["headers"])
        if self.key and scope["path"] not in OPEN:
            kind, _, given = headers.get(b"authorization", b"").partition(b" ")
            # Compared in a time that does not tell how much of it was right.
            if kind.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self.key.encode()):
                raise HTTPException(401, "send the key as Authorization: Bearer KEY", {"WWW-Authenticate": "Bearer"})
        if scope["method"] == "POST":
            stated = headers.get(b"content-length", b"")
            self._refuse_large(int(stated) if stated.isdigit() else 0)
            self.check()

    def _refuse_large(self, size: int) -> None:
        if size > self.max_bytes:
            most = f"{self.max_bytes / 2**20:g} MiB"
            raise HTTPException(413, f"the request is larger than {most}; send fewer or smaller files at a time")
