"""Require a token: whoever opens the page by the address that contains it gets a cookie, and needs it no more."""

import hmac
import re
from urllib.parse import parse_qsl, urlencode

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.websockets import WebSocket

from agepipe.core.errors import ConfigError
from agepipe.serving.web.host_check import App, Receive, Scope, Send

COOKIE = "agepipe-token"
QUERY = "token"
LEAST = 16
"""Least number of characters; 16 random letters and digits cannot be guessed."""
MAX_AGE = 30 * 24 * 3600
"""Time for which a browser keeps the cookie, s."""


def check_token(token: str) -> None:
    """Refuse a token that is easily guessed, or that an address cannot contain as it is; empty means none.

    Raises:
        ConfigError: says what is allowed, without the token.
    """
    if token and not re.fullmatch(rf"[\w-]{{{LEAST},}}", token, re.ASCII):
        raise ConfigError(
            f"--token: it has {len(token)} characters; give at least {LEAST}, each a letter, a digit, - or _, such as "
            "those of `python3 -c 'import secrets; print(secrets.token_urlsafe())'`."
        )


class TokenCheck:
    """ASGI middleware that asks for the token before requests reach the app."""

    def __init__(self, app: App, token: str, free: str) -> None:
        """Wrap an app.

        Args:
            app: the app.
            token: the token.
            free: a path that needs no token.
        """
        self._app, self._token, self._free = app, token, free

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the app, set the cookie, or respond with 401."""
        if scope["type"] not in ("http", "websocket") or scope["path"] == self._free:
            return await self._app(scope, receive, send)
        asked = HTTPConnection(scope)
        if self._is_known(asked):
            return await self._app(scope, receive, send)
        response = self._answer(asked)
        if scope["type"] == "websocket":
            return await WebSocket(scope, receive, send).send_denial_response(response)
        return await response(scope, receive, send)

    def _is_known(self, asked: HTTPConnection) -> bool:
        kind, _, given = asked.headers.get("authorization", "").partition(" ")
        return self._matches(asked.cookies.get(COOKIE, "")) or (kind.lower() == "bearer" and self._matches(given))

    def _answer(self, asked: HTTPConnection) -> Response:
        """Leads to the same address without the token if it is right, so that nobody reads it there."""
        if not self._matches(asked.query_params.get(QUERY, "")):
            return PlainTextResponse(
                f"A token is needed: open the page once by its address with ?{QUERY}=TOKEN at the end, as whoever "
                "started it knows it.",
                status_code=401, headers={"WWW-Authenticate": 'Bearer realm="agepipe"'},
            )  # fmt: skip
        others = [pair for pair in parse_qsl(asked.url.query) if pair[0] != QUERY]
        response = RedirectResponse("?".join(filter(None, (asked.url.path, urlencode(others)))), status_code=303)
        response.set_cookie(
            COOKIE, self._token, max_age=MAX_AGE, secure=asked.url.scheme in ("https", "wss"), httponly=True,
            samesite="lax",  # a strict one would not be sent by a browser that follows the link out of a message
        )  # fmt: skip
        return response

    def _matches(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())
