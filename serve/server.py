"""The process that serves: its socket, how long it waits for whom, how it ends."""

import asyncio
import socket
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sslbt.errors import UserError

HEADER_SECONDS = 20.0  # that a request's headers may take to arrive
HEADER_BYTES = 2**19  # of headers, or whatever else comes that is no body; one read has half of it
ANSWER_SECONDS = 60.0  # that a caller may leave an answer lying
DRAIN_SECONDS = 30  # for requests under way when asked to end


class Impatient(HttpToolsProtocol):
    """uvicorn's HTTP, which would hold what never finishes its headers, sends endless ones, or takes no answer."""

    deadline: asyncio.TimerHandle | None = None  # for headers
    unread: asyncio.TimerHandle | None = None  # for the answer
    headed = 0  # bytes since the last that were of use

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.deadline = self.loop.call_later(HEADER_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        self.headed += len(data)
        super().data_received(data)
        if self.headed > HEADER_BYTES:
            self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self.deadline is None:
            self.deadline = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def on_headers_complete(self) -> None:
        self.headed = 0
        self._in_time()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self.headed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.headed = 0
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.unread = self.loop.call_later(ANSWER_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._taken()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        self._taken()
        super().connection_lost(exc)

    def _in_time(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    def _taken(self) -> None:
        if self.unread is not None:
            self.unread.cancel()
            self.unread = None


def run(app: FastAPI, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM, then finish the requests under way; port 0 takes any free one.

    Raises:
        UserError: the address can't be listened on.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError, TypeError) as error:  # a port above 65535; a name that none can be
        raise UserError(f"{host}:{port}: can't listen there ({error}); choose another host or port") from error
    _allow_many_connections()
    with listener:
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        print(f"Serving on http://{shown}:{listener.getsockname()[1]}", flush=True)
        config = uvicorn.Config(app, http=Impatient, access_log=False, timeout_graceful_shutdown=DRAIN_SECONDS)
        uvicorn.Server(config).run(sockets=[listener])


def _allow_many_connections() -> None:
    """Every connection is an open file: slow callers must not use up the few that a shell allows."""
    if sys.platform != "win32":
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
