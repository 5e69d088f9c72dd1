"""The temporary Prefect server of a command ends with the command, whatever ends that: SIGTERM and SIGKILL included.

Prefect ends it when Python exits in order, which a signal does not let it do. A small process of its own therefore
holds one end of a pipe; the other is the command's, and the system closes it when the command is no more.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

from prefect.server.api import server as prefect_server
from prefect.server.api.server import SubprocessASGIServer

GRACE = 10
"""Seconds that the server has to end by itself."""
_GUARD = f'read -r _; kill "$0" && sleep {GRACE} && kill -9 "$0"'
"""Waits for the end of the pipe; the server's process id is its name."""


class TemporaryServer(SubprocessASGIServer):
    """Prefect's own, guarded. Made once before a flow runs, it is the one that Prefect then finds and starts."""

    _guard: "subprocess.Popen[bytes] | None" = None

    def _run_uvicorn_command(self) -> "subprocess.Popen[Any]":
        self._dismiss()  # that of a server which found its port taken
        with _session_of_its_own():
            server = super()._run_uvicorn_command()
        self._guard = _guarded(server.pid)
        return server

    def stop(self) -> None:
        """End the server, then its guard."""
        super().stop()
        self._dismiss()

    def _dismiss(self) -> None:
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
        self._guard = None


@contextmanager
def _session_of_its_own() -> Iterator[None]:
    """Start the server so that Ctrl-C does not reach it: the command has yet to tell it how its run ended."""
    popen = partial(subprocess.Popen, start_new_session=True)
    prefect_server.subprocess = SimpleNamespace(**{**vars(subprocess), "Popen": popen})  # type: ignore[attr-defined,assignment]
    try:
        yield
    finally:
        prefect_server.subprocess = subprocess  # type: ignore[attr-defined]


def _guarded(server: int) -> "subprocess.Popen[bytes]":
    """Start the guard, in a session of its own: Ctrl-C in a terminal reaches all processes of the command's."""
    null = subprocess.DEVNULL
    return subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, str(server)], stdin=subprocess.PIPE, stdout=null, stderr=null, start_new_session=True
    )
