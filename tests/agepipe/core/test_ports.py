"""A port is bound before anything is started, or refused in one sentence."""

import socket

import pytest

from agepipe.core.errors import ServiceError
from agepipe.core.ports import bound


def test_any_free_port_is_bound_and_who_comes_early_waits() -> None:
    with bound("--port", "127.0.0.1", 0) as found:
        assert found.getsockname()[0] == "127.0.0.1"
        with socket.create_connection(found.getsockname()[:2], timeout=5) as early:
            early.sendall(b"x")


def test_a_port_in_use_is_refused_and_another_proposed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError, match=rf"--mlflow-port: port {port} is in use; .* {port + 1}\."):
            bound("--mlflow-port", "127.0.0.1", port)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "203.0.113.7"])
def test_a_foreign_host_is_refused(host: str) -> None:
    with pytest.raises(ServiceError, match=f"--host: '{host}' "):
        bound("--port", host, 0)
