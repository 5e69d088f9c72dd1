"""Whom the page's server answers: nobody who came by a foreign name, and no script of another site.

A page of another site can have its own name point to this machine (DNS rebinding), and a WebSocket may be opened
across sites. Both show in headers that a browser sets and a script cannot: `Host` must be an address or a name of this
machine, and the `Origin` of a WebSocket must be this very server.
"""

import socket
from collections.abc import Awaitable, Callable, MutableMapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """Around an ASGI app: what is refused never reaches it."""

    def __init__(self, app: App, host: str) -> None:
        """Guard an app that is served on a host."""
        self._app, self._names = app, {"localhost", socket.gethostname().lower(), host.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403 with the reason, or let the app answer."""
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        why = self.refusal(Headers(scope=scope), origin=scope["type"] == "websocket")
        if not why:
            return await self._app(scope, receive, send)
        answer = PlainTextResponse(why, status_code=403)
        if scope["type"] == "websocket":
            return await WebSocket(scope, receive, send).send_denial_response(answer)
        return await answer(scope, receive, send)

    def refusal(self, headers: Headers, *, origin: bool) -> str:
        """Why a request is refused; empty when it is not.

        Args:
            headers: of the request.
            origin: whether it must come from a page of this server.
        """
        host, found = headers.get("host", ""), headers.get("origin", "")
        if not self._ours(host):
            return f"Host: {host!r} is no name of this machine; open the page by its address."
        if origin and _netloc(found) != host.lower():
            return f"Origin: {found!r} is not this server; only its own page, at {host}, may ask."
        return ""

    def _ours(self, host: str) -> bool:
        name = _name(host)
        return name in self._names or _is_address(name)


def _is_address(name: str) -> bool:
    """Whether it is an IP address, which no other site can have pointed elsewhere."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
