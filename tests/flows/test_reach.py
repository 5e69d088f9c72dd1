"""A Prefect server that the user named and that is not there, wants a password, or is none: one error, in time."""

import socket
import time

import pytest
from answering import Answer, answering

from agepipe.core.errors import ServiceError
from flows import reach

LIMIT = 10.0
"""Seconds."""
PAGE = "<!doctype html><title>Router</title>"


def refused(url: str) -> str:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    start = time.monotonic()
    with pytest.raises(ServiceError) as told, temporary_settings({PREFECT_API_URL: url}):
        reach.check_alive(url)
        reach.check()
    assert time.monotonic() - start < LIMIT
    assert url in str(told.value)
    assert "\n" not in str(told.value)
    return str(told.value)


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (Answer(401), "PREFECT_API_AUTH_STRING"),
        (Answer(403, PAGE), "PREFECT_API_AUTH_STRING"),
        (Answer(404, PAGE), "404"),
        (Answer(500), "500"),
        (Answer(503, PAGE), "503"),
        (Answer(200, PAGE), "address"),
        (Answer(200, '{"detail": "other"}'), "address"),
        (Answer(200, '"2.19.0"'), "2.19.0"),
        (Answer(200, '"4.0.0"'), "4.0.0"),
    ],
)
def test_the_error_says_what_is_wrong_with_the_server(answer: Answer, word: str) -> None:
    with answering(answer) as url:
        assert word in refused(f"{url}/api")


def test_a_server_that_is_gone_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    refused(f"http://127.0.0.1:{port}/api")


def test_a_server_that_does_not_answer_is_named_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "SECONDS", 0.3)
    with answering(Answer(200, silent=True)) as url:
        refused(f"{url}/api")


@pytest.mark.parametrize("url", ["nonsense", "http://", "ftp://127.0.0.1/api", "http://[::1/api"])
def test_an_invalid_address_is_refused(url: str) -> None:
    with pytest.raises(ServiceError):
        reach.check_alive(url)


def test_an_error_without_a_message_is_named_by_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("prefect.client.orchestration.get_client", broken)
    with pytest.raises(ServiceError, match="RuntimeError"):
        reach.check()


@pytest.mark.slow
def test_a_real_server_is_accepted(prefect_server: None) -> None:
    reach.check()
