"""The temporary Prefect server of a command ends with the command, whatever ends that: SIGTERM and SIGKILL included.

Prefect ends it when Python exits in order, which a signal does not let it do. A small process of its own therefore
holds one end of a pipe; the other is the command's, and the system closes it when the command is no more.
"""

import atexit
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from typing import IO, Any

import prefect
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS, get_current_settings

from agepipe.core.errors import ServiceError

GRACE = 10
"""Seconds that the server has to end by itself."""
SILENCE = 2.0
"""Seconds that a question for its health may take."""
_GUARD = f'read -r _; kill "$0" && sleep {GRACE} && kill -9 "$0"'
"""Waits for the end of the pipe; the server's process id is its name."""
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class TemporaryServer(SubprocessASGIServer):
    """Prefect's own, guarded. Made once before a flow runs, it is the one that Prefect then finds and starts.

    Prefect's own start chooses a port that another process may take before the server does, and waits for two minutes
    for a server that has ended; this one hands the server a bound socket and looks whether it is alive.
    """

    _guard: "subprocess.Popen[bytes] | None" = None
    _said: IO[bytes] | None = None

    def start(self, timeout: int | None = None) -> None:
        """Start the server and wait until it answers; nothing where it runs already.

        Raises:
            ServiceError: it ended, or did not answer in time.
        """
        if self.running:
            return
        self.running = True
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  read when the server has ended
        try:
            self.server_process = self._run_uvicorn_command()
            atexit.register(self.stop)
            self._wait(timeout or PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value())
        except BaseException:
            self.stop()
            raise

    def _run_uvicorn_command(self) -> "subprocess.Popen[Any]":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
            server = subprocess.Popen(
                [
                    sys.executable, "-m", "uvicorn", "--app-dir", str(prefect.__module_path__.parent), "--factory",
                    "prefect.server.api.server:create_app", "--fd", str(listener.fileno()), "--log-level", "error",
                    "--lifespan", "on",
                ],
                pass_fds=[listener.fileno()], env=_environ(), stdout=self._said, stderr=self._said,
                cwd=get_current_settings().home,  # no prefect.toml of another program lies there
                start_new_session=True,  # Ctrl-C must not reach it: the command has yet to tell it how its run ended
            )  # fmt: skip
        self._guard = _guarded(server.pid)
        return server

    def _wait(self, seconds: float) -> None:
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            if self.server_process is None or self.server_process.poll() is not None:
                raise ServiceError(f"Prefect's temporary server ended as it started: {self._last_words()}")
            if _answers(f"{self.api_url}/health"):
                return
            time.sleep(0.1)
        raise ServiceError(
            f"Prefect's temporary server did not answer in {seconds:.0f} s ({self._last_words()}); try again on a less "
            "busy machine, or keep a server with `agepipe up`."
        )

    def _last_words(self) -> str:
        if self._said is None:
            return reason("")
        self._said.seek(0)
        return reason(self._said.read().decode(errors="replace"))

    def stop(self) -> None:
        """End the server, then its guard."""
        super().stop()
        self._dismiss()
        if self._said is not None:
            self._said.close()
        self._said = None

    def _dismiss(self) -> None:
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
        self._guard = None


def _environ() -> dict[str, str]:
    known = get_current_settings().to_environment_variables(exclude_unset=True)
    return {
        **os.environ, **known,
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR",  # it goes to no terminal, and may say why the server ended
        "PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1",
    }  # fmt: skip


def reason(log: str) -> str:
    """Why a server ended: the last line of its log that names an error, or the last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(\w+\.)*\w*(Error|Exception)\b", line)]
    return (errors or lines or ["it left no word"])[-1][:300]


def _answers(url: str) -> bool:
    try:
        with _DIRECT.open(url, timeout=SILENCE) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _guarded(server: int) -> "subprocess.Popen[bytes]":
    """Start the guard, in a session of its own: Ctrl-C in a terminal reaches all processes of the command's."""
    null = subprocess.DEVNULL
    return subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, str(server)], stdin=subprocess.PIPE, stdout=null, stderr=null, start_new_session=True
    )
