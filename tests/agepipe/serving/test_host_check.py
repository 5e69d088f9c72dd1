"""What the guard around a page's server lets through; other tests ask real servers behind it."""

import asyncio
import base64
from collections.abc import MutableMapping
from typing import Any

import pytest

from agepipe.serving.web.host_check import Guard, Receive, Scope, Send

HERE = "127.0.0.1:5000"
KNOWN = "Basic " + base64.b64encode(b"agepipe:secret").decode()
LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"let through"})


def status(guard: Guard, method: str = "GET", path: str = "/", kind: str = "http", **headers: str) -> int:
    """The status of an answer; headers are named with _ for -."""
    given = {"host": HERE, **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": kind, "path": path, "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        "extensions": {"websocket.http.response": {}},
    }  # fmt: skip
    if kind == "http":
        scope["method"] = method
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "websocket.connect"}

    asyncio.run(guard(scope, receive, send))
    return int(sent[0]["status"])


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "foreign",
    [
        {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:5001"},
        {"origin": "http://localhost:5000"}, {"origin": ""}, {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site", "sec_fetch_mode": "no-cors"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"},
        {"host": "evil.example:5000"}, {"host": "127.0.0.1.evil.example"}, {"host": ""},
    ],
)  # fmt: skip
def test_whatever_comes_from_elsewhere_is_refused(method: str, foreign: dict[str, str]) -> None:
    assert status(Guard(app, "127.0.0.1"), method, **foreign) == 403
    assert status(Guard(app, "127.0.0.1"), kind="websocket", **foreign) == 403


def test_its_own_page_and_programs_are_let_through() -> None:
    guard = Guard(app, "127.0.0.1")
    assert status(guard, "POST", origin=f"http://{HERE}", sec_fetch_site="same-origin") == 200
    assert status(guard, sec_fetch_site="none", sec_fetch_mode="navigate") == 200
    assert status(guard, "POST") == 200
    assert status(guard, kind="websocket") == 200


def test_a_person_may_follow_a_link_but_a_page_may_not_send_a_form() -> None:
    link = {name.replace("-", "_"): value for name, value in LINK.items()}
    assert status(Guard(app, "127.0.0.1"), "GET", **link) == 200
    assert status(Guard(app, "127.0.0.1"), "POST", **link) == 403


@pytest.mark.parametrize(
    "given",
    ["", "Basic", "Basic !", f"Bearer {KNOWN.partition(' ')[2]}", "Basic " + base64.b64encode(b"agepipe:").decode()],
)
def test_without_the_password_nothing_is_answered_but_the_free_path(given: str) -> None:
    guard = Guard(app, "127.0.0.1", auth="agepipe:secret", free="/health")
    headers = {"authorization": given} if given else {}
    for path in ("/", "/health/", "//health", "/api/2.0/mlflow/runs/create"):
        assert status(guard, "POST", path, **headers) == 401
        assert status(guard, path=path, authorization=KNOWN) == 200
    assert status(guard, path="/health", **headers) == 200
    assert status(guard, path="/health", host="evil.example") == 403
    assert status(guard, "POST", authorization=KNOWN, origin="http://127.0.0.1:9") == 403
