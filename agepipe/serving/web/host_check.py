"""Whom a page's server answers: nobody who came by a foreign name, and no script of another site.

A page of another site can have its own name point to this machine (DNS rebinding), and requests and WebSockets may be
sent across sites. Both show in headers that a browser sets and a script cannot: `Host` must be an address or a name of
this machine, `Origin` must be this very server, and `Sec-Fetch-Site` must not be another one, unless a person follows a
link. Another port of this machine is another site.
"""

import base64
import binascii
import hmac
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
REALM = {"WWW-Authenticate": 'Basic realm="agepipe", charset="UTF-8"'}
"""Has a browser ask for user and password."""
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """Around an ASGI app: what is refused never reaches it."""

    def __init__(self, app: App, host: str, auth: str = "", free: str = "", strict: bool = False) -> None:
        """Guard an app that is served on a host.

        Args:
            app: what is guarded.
            host: the name or address that it is served on.
            auth: USER:PASSWORD that is asked for; empty asks for none.
            free: a path that is answered without it.
            strict: whether a WebSocket must come from a page, and not from a program, which names no origin.
        """
        self._app, self._names = app, {"localhost", socket.gethostname().lower(), host.lower()}
        self._auth, self._free, self._strict = auth, free, strict

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403 or 401 with the reason, or let the app answer."""
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        answer = None
        if why := self.refusal(headers, method=scope.get("method", ""), socket=scope["type"] == "websocket"):
            answer = PlainTextResponse(why, status_code=403)
        elif self._auth and scope["path"] != self._free and not self._knows(headers.get("authorization", "")):
            why = "User and password are needed; `agepipe up` has printed them."
            answer = PlainTextResponse(why, status_code=401, headers=REALM)
        if answer is None:
            return await self._app(scope, receive, send)
        if scope["type"] == "websocket":
            return await WebSocket(scope, receive, send).send_denial_response(answer)
        return await answer(scope, receive, send)

    def refusal(self, headers: Headers, *, method: str, socket: bool) -> str:
        """Why a request is refused; empty when it is not.

        Args:
            headers: of the request.
            method: of the request; empty for a WebSocket.
            socket: whether it opens a WebSocket.
        """
        host, found, site = (headers.get(name) for name in ("host", "origin", "sec-fetch-site"))
        if not self._ours(host or ""):
            return f"Host: {host!r} is no name of this machine; open the page by its address."
        asked = found is not None or (socket and self._strict)
        if asked and _netloc(found or "") != (host or "").lower():
            return f"Origin: {found!r} is not this server; only its own page, at {host}, may ask."
        if site in ("cross-site", "same-site") and not _followed(headers, method):
            return f"Sec-Fetch-Site: {site!r} is not this server; only its own page, at {host}, may ask."
        return ""

    def _knows(self, authorization: str) -> bool:
        kind, _, coded = authorization.partition(" ")
        try:
            given = base64.b64decode(coded, validate=True)
        except (binascii.Error, ValueError):
            return False
        return kind.lower() == "basic" and hmac.compare_digest(given, self._auth.encode())

    def _ours(self, host: str) -> bool:
        name = _name(host)
        return name in self._names or _is_address(name)


def _followed(headers: Headers, method: str) -> bool:
    """Whether a person followed a link to a page in a window of its own."""
    mode, place = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
    return (method, mode, place) == ("GET", "navigate", "document")


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
