"""Refuse requests to a foreign host name, and requests from pages of other sites.

The domain of another site can be made to resolve to this machine (DNS rebinding), and browsers send requests and
WebSockets across sites. Both are visible in headers that scripts cannot set: `Host` must be an IP address or a name of
this machine, `Origin` must be this server, and `Sec-Fetch-Site` must not be another site, unless the user follows a
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
"""Header by which a browser asks for user and password."""
FRAMES = (b"content-security-policy", b"frame-ancestors 'self'")
"""Header that keeps other sites from framing a page; browsers send `Sec-Fetch-Site` to loopback and https alone."""
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """ASGI middleware that refuses requests before they reach the app."""

    def __init__(
        self, app: App, host: str, auth: str = "", free: str = "", strict: bool = False, any_name: bool = False
    ) -> None:
        """Wrap an app.

        Args:
            app: the app.
            host: name or address on which it is served.
            auth: the required USER:PASSWORD; empty requires none.
            free: a path that needs no password.
            strict: whether a WebSocket needs an `Origin`, which browsers send and other programs do not.
            any_name: whether to serve under every name, as behind a reverse proxy; only with a password or a token,
                which a browser does not send to a rebound name.
        """
        self._app, self._names = app, {"localhost", socket.gethostname().lower(), host.lower()}
        self._auth, self._free, self._strict, self._any_name = auth, free, strict, any_name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond with 403 or 401 and the reason, or call the app."""
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        response = None
        if why := self.refusal(headers, method=scope.get("method", ""), socket=scope["type"] == "websocket"):
            response = PlainTextResponse(why, status_code=403)
        elif self._auth and scope["path"] != self._free and not self._authorised(headers.get("authorization", "")):
            why = "User and password are needed; `agepipe up` has printed them."
            response = PlainTextResponse(why, status_code=401, headers=REALM)
        if response is None:
            return await self._app(scope, receive, _unframed(send))
        if scope["type"] == "websocket":
            return await WebSocket(scope, receive, send).send_denial_response(response)
        return await response(scope, receive, send)

    def refusal(self, headers: Headers, *, method: str, socket: bool) -> str:
        """The reason for which a request is refused; empty if it is not.

        Args:
            headers: headers of the request.
            method: its method; empty for a WebSocket.
            socket: whether it opens a WebSocket.
        """
        host, found, site = (headers.get(name) for name in ("host", "origin", "sec-fetch-site"))
        if not (self._any_name or self._is_local(host or "")):
            return f"Host: {host!r} is no name of this machine; open the page by its address."
        origin_needed = found is not None or (socket and self._strict)
        if origin_needed and _netloc(found or "") != (host or "").lower():
            return f"Origin: {found!r} is not this server; only its own page, at {host}, is allowed."
        if site in ("cross-site", "same-site") and not _link_followed(headers, method):
            return f"Sec-Fetch-Site: {site!r} is not this server; only its own page, at {host}, is allowed."
        return ""

    def _authorised(self, authorization: str) -> bool:
        kind, _, coded = authorization.partition(" ")
        try:
            given = base64.b64decode(coded, validate=True)
        except (binascii.Error, ValueError):
            return False
        return kind.lower() == "basic" and hmac.compare_digest(given, self._auth.encode())

    def _is_local(self, host: str) -> bool:
        name = _name(host)
        return name in self._names or _is_address(name)


def _unframed(send: Send) -> Send:
    async def sent(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            own = any(name == FRAMES[0] for name, _ in headers)
            message = {**message, "headers": headers if own else [*headers, FRAMES]}
        await send(message)

    return sent


def _link_followed(headers: Headers, method: str) -> bool:
    """Whether the user followed a link that opens a page, not one embedded in another page."""
    mode, destination = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
    return (method, mode, destination) == ("GET", "navigate", "document")


def _is_address(name: str) -> bool:
    """Whether it is an IP address, for which DNS rebinding is impossible."""
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
