"""An MLflow server that is gone, wants a password, or is none: one error within ten seconds, not MLflow's minutes."""

import socket
import time
from pathlib import Path

import pytest
from answering import Answer, answering

from agepipe.config.runtime import Runtime
from agepipe.core.errors import TrackingError
from agepipe.registry import lookup, store, tracking

LIMIT = 10.0
"""Seconds."""


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """On a busy machine MLflow takes long to import, which is no waiting for a server."""
    store.quiet()


def refused(url: str, tmp_path: Path) -> str:
    runtime = Runtime(workspace=tmp_path / "workspace", tracking=url)
    messages = []
    for ask in (lambda: tracking.prepare(runtime), lambda: lookup.resolve("champion", runtime)):
        start = time.monotonic()
        with pytest.raises(TrackingError) as told:
            ask()
        assert time.monotonic() - start < LIMIT
        messages.append(str(told.value))
    assert all(url in message and "\n" not in message for message in messages)
    return messages[0]


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (Answer(401), "MLFLOW_TRACKING_USERNAME"),
        (Answer(403, "<html>"), "MLFLOW_TRACKING_USERNAME"),
        (Answer(403, "Invalid Host header - possible DNS rebinding attack detected"), "--allowed-hosts 127.0.0.1:"),
        (Answer(404, "<html>"), "404"),
        (Answer(404, '{"error_code": "ENDPOINT_NOT_FOUND"}'), "404"),
        (Answer(429), "429"),
        (Answer(500), "500"),
        (Answer(503, "<html>"), "503"),
        (Answer(200, "<html>"), "200"),
        (Answer(200, '["other"]'), "200"),
    ],
)
def test_the_error_says_what_is_wrong_with_the_server(answer: Answer, word: str, tmp_path: Path) -> None:
    with answering(answer) as url:
        assert word in refused(url, tmp_path)


def test_a_server_that_is_gone_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    refused(f"http://127.0.0.1:{port}", tmp_path)


def test_a_server_that_does_not_answer_is_named_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SECONDS", 0.3)
    with answering(Answer(200, silent=True)) as url:
        refused(url, tmp_path)
