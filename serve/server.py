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
DRAIN_SECONDS = 30  # for requests under way when asked to end


class Impatient(HttpToolsProtocol):
    """uvicorn's HTTP, which would hold a connection that never finishes its headers."""

    deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.deadline = self.loop.call_later(HEADER_SECONDS, transport.abort)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self.deadline is None:
            self.deadline = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def on_headers_complete(self) -> None:
        self._in_time()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        super().connection_lost(exc)

    def _in_time(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None


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
    _allow_many_connections()
    with listener:
        print(f"Serving on http://{host}:{listener.getsockname()[1]}", flush=True)
        config = uvicorn.Config(app, http=Impatient, access_log=False, timeout_graceful_shutdown=DRAIN_SECONDS)
        uvicorn.Server(config).run(sockets=[listener])


def _allow_many_connections() -> None:
    """Every connection is an open file: slow callers must not use up the few that a shell allows."""
    if sys.platform != "win32":
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
