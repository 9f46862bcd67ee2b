"""What a browser may do here for whom: only our own page may ask, and nothing of it is framed, guessed or passed on.

A page from anywhere can make its reader's browser post to a service that only the reader reaches, and read the answers
once the page's own name points at the service (DNS rebinding). Browsers say enough to refuse both: Fetch Metadata and
Origin (as Go's `http.CrossOriginProtection` uses them), and the name that they believe they ask.
"""

import base64
import hashlib
import re
from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.limits import OPEN
from serve.problems import problem

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})  # they change nothing, and other origins can't read the answers
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",  # where an answer has none of its own
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Browsers:
    """ASGI middleware: 403 for requests that a page of another origin makes, 421 for a name that is not ours.

    Args:
        names: the service may be called by besides addresses and localhost; None for any name.
    """

    def __init__(self, app: ASGIApp, names: Collection[str] | None = None) -> None:
        self.app = app
        self.names = None if names is None else {name.strip().lower() for name in names if name.strip()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope["method"], scope["path"], Headers(scope=scope))
        except HTTPException as refusal:
            return await problem(scope["path"], refusal)(scope, receive, guarded)
        await self.app(scope, receive, guarded)

    def _check(self, method: str, path: str, headers: Headers) -> None:
        host = headers.get("host", "")  # old probes have none, browsers always
        if path not in OPEN and self.names is not None and host and not _known(host, self.names):
            raise HTTPException(421, "the service is not known by this name; whoever runs it can add it to SSLBT_HOSTS")
        if method not in SAFE and not _same_origin(headers, host):
            raise HTTPException(403, "a page of another origin asked for this; use the service's own page")


def policy(page: str, scripts: str = "", styles: str = "", images: str = "data:") -> str:
    """Under which a browser runs nothing but the scripts written into this page, and what is allowed besides."""
    inline = " ".join(map(_hash, re.findall("<script>(.*?)</script>", page, re.DOTALL)))
    styles = styles or " ".join(map(_hash, re.findall("<style>(.*?)</style>", page, re.DOTALL)))
    return (
        f"default-src 'none'; script-src {scripts} {inline}; style-src {styles}; img-src {images}; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _known(host: str, names: Collection[str]) -> bool:
    """Whether no foreign page can be of this name: an address, localhost, or one of ours."""
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return False
    return name == "localhost" or name in names or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        return bool(ip_address(name))
    except ValueError:
        return False


def _same_origin(headers: Headers, host: str) -> bool:
    """What asks is no browser, its user (`none`), or a page of ours."""
    if site := headers.get("sec-fetch-site"):
        return site in ("same-origin", "none")
    origin = headers.get("origin")  # of browsers that are older, or where there is neither TLS nor loopback
    try:
        return origin is None or urlsplit(origin).netloc.lower() == host.lower() != ""
    except ValueError:  # no address at all
        return False


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
