"""Only requests that name this machine's own address are served."""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import problem_response

_LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)


class LoopbackHostMiddleware:
    """Refuses a Host header with another name: by one, any page in a browser could reach this port."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, or answer `invalid-host`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        host = Headers(scope=scope).get("host", "")
        if _LOOPBACK.fullmatch(host):
            await self._app(scope, receive, send)
            return
        detail = f"the Host header names {host[:200]!r}; use localhost, 127.0.0.1 or [::1]"
        await problem_response("invalid-host", 400, detail)(scope, receive, send)
