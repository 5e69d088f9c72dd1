"""The token of the web page, asked for by a real server, in HTTP and for WebSockets."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import make_bundle
from chips import detector_file
from pages import jpeg, scene, served
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from agepipe.config.runtime import Runtime
from agepipe.core.errors import ConfigError
from agepipe.serving.camera_session import CameraOptions
from agepipe.serving.detect import yunet
from agepipe.serving.web import server as web
from agepipe.serving.web.token_check import COOKIE, check_token

TOKEN = "correct-horse-battery_staple"
OUTSIDE = "ages.example.org"
"""A name under which a proxy serves the page, which this machine does not have."""


@pytest.fixture(scope="module")
def address(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(yunet.VARIABLE, str(detector_file(shared)))
        model = make_bundle(folder / "brightness").folder
        ready = web.prepare(CameraOptions(model=str(model)), Runtime(workspace=folder))
        with served(ready, token=TOKEN) as found:
            yield found


def _get(address: str, path: str, **headers: str) -> tuple[int, str, str | None, str | None]:
    """Status, body, `Location` and `Set-Cookie`; nothing is followed."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("GET", path, headers={"Host": OUTSIDE, **headers})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.getheader("location"), answer.getheader("set-cookie")
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/", "/status", "/page.js", f"/?token={TOKEN[:-1]}", "/?token=", "/?token=é"])
def test_without_the_token_nothing_is_shown(address: str, path: str) -> None:
    status, body, _, cookie = _get(address, path.replace("é", "%C3%A9"))
    assert (status, cookie) == (401, None)
    assert body.startswith("A token is needed")
    assert TOKEN not in body


@pytest.mark.parametrize(
    "headers", [{"Cookie": f"{COOKIE}={TOKEN[:-1]}"}, {"Cookie": f"{COOKIE}="}, {"Authorization": f"Basic {TOKEN}"}]
)
def test_a_wrong_cookie_or_header_is_no_token(address: str, headers: dict[str, str]) -> None:
    assert _get(address, "/", **headers)[0] == 401


def test_the_address_with_the_token_gives_a_cookie_and_leads_on_without_it(address: str) -> None:
    status, _, location, cookie = _get(address, f"/?a=1&token={TOKEN}&b=%26")
    assert (status, location) == (303, "/?a=1&b=%26")
    assert cookie is not None
    assert cookie.startswith(f"{COOKIE}={TOKEN};")
    assert {"HttpOnly", "SameSite=lax"} <= {part.strip() for part in cookie.split(";")}
    assert "Secure" not in cookie
    assert _get(address, "/", Cookie=cookie.split(";")[0])[0] == 200


def test_behind_a_proxy_that_serves_https_the_cookie_travels_encrypted_only(address: str) -> None:
    cookie = _get(address, f"/?token={TOKEN}", **{"X-Forwarded-Proto": "https"})[3]
    assert "Secure" in (cookie or "")


def test_a_program_gives_the_token_in_a_header(address: str) -> None:
    assert _get(address, "/status", Authorization=f"Bearer {TOKEN}")[0] == 200


def test_a_probe_needs_no_token(address: str) -> None:
    status, body, _, _ = _get(address, "/health")
    assert (status, json.loads(body)) == (200, {"model": "brightness", "problem": ""})


def test_pictures_are_answered_with_the_token_only_and_not_from_other_sites(address: str) -> None:
    def ask(origin: str, **headers: str) -> int:
        with connect(
            f"ws://{address}/faces", origin=origin, additional_headers=headers, proxy=None,  # type: ignore[arg-type]
        ) as socket:  # fmt: skip
            socket.send(jpeg(scene()))
            return len(json.loads(socket.recv(timeout=30))["faces"])

    known = {"Cookie": f"{COOKIE}={TOKEN}"}
    assert ask(f"http://{address}", **known) == 1
    for origin, headers, status in ((f"http://{address}", {}, 401), ("http://evil.example", known, 403)):
        with pytest.raises(InvalidStatus) as refused:
            ask(origin, **headers)
        assert refused.value.response.status_code == status


@pytest.mark.parametrize(
    "token", ["short", "x" * 15, "with a space in it", "ümlautümlautümlaut", "slash/slash/slash/s"]
)
def test_a_token_that_is_guessed_or_changes_in_an_address_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(ConfigError, match=f"--token: it has {len(token)} characters; give at least 16") as refused:
        check_token(token)
    assert token not in str(refused.value)


def test_no_token_is_none() -> None:
    check_token("")
