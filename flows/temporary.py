"""The temporary Prefect server of a command, which ends with the command even after SIGTERM or SIGKILL.

Prefect stops its server in an exit handler, which does not run after a signal. A small guard process therefore waits on
a pipe whose other end belongs to the command: the system closes that end when the command has ended.
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
"""Seconds between SIGTERM and SIGKILL."""
SILENCE = 2.0
"""Timeout of a health request in seconds."""
_GUARD = f'read -r _; kill "$0" && sleep {GRACE} && kill -9 "$0"'
"""Shell command that waits for the end of the pipe; `$0` is the process id of the server."""
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class TemporaryServer(SubprocessASGIServer):
    """Prefect's temporary server with a guard; a singleton, so that Prefect uses the instance made before a flow runs.

    Prefect chooses a port that another process may take before the server binds it, and waits two minutes for a server
    that has ended. This class gives the server a bound socket and notices when it ends.
    """

    _guard: "subprocess.Popen[bytes] | None" = None
    _log: IO[bytes] | None = None

    def start(self, timeout: int | None = None) -> None:
        """Start the server, unless it runs, and wait until it answers.

        Raises:
            ServiceError: the server ended, or did not answer in time.
        """
        if self.running:
            return
        self.running = True
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  read when the server has ended
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
                pass_fds=[listener.fileno()], env=_environ(), stdout=self._log, stderr=self._log,
                cwd=get_current_settings().home,  # a folder without another program's prefect.toml
                start_new_session=True,  # Ctrl-C must not stop it: the command still reports how its run ended
            )  # fmt: skip
        self._guard = _guarded(server.pid)
        return server

    def _wait(self, seconds: float) -> None:
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            if self.server_process is None or self.server_process.poll() is not None:
                raise ServiceError(f"Prefect's temporary server ended during its start: {self._error()}")
            if _answers(f"{self.api_url}/health"):
                return
            time.sleep(0.1)
        raise ServiceError(
            f"Prefect's temporary server did not answer in {seconds:.0f} s ({self._error()}); try again on a less "
            "busy machine, or keep a server with `agepipe up`."
        )

    def _error(self) -> str:
        if self._log is None:
            return reason("")
        self._log.seek(0)
        return reason(self._log.read().decode(errors="replace"))

    def stop(self) -> None:
        """Stop the server, then its guard."""
        super().stop()
        self._dismiss()
        if self._log is not None:
            self._log.close()
        self._log = None

    def _dismiss(self) -> None:
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
        self._guard = None


def _environ() -> dict[str, str]:
    known = get_current_settings().to_environment_variables(exclude_unset=True)
    return {
        **os.environ, **known,
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR",  # goes to no terminal; used if the server ends
        "PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1",
    }  # fmt: skip


def reason(log: str) -> str:
    """The last line of a log that names an error, or else the last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(\w+\.)*\w*(Error|Exception)\b", line)]
    return (errors or lines or ["its log is empty"])[-1][:300]


def _answers(url: str) -> bool:
    try:
        with _DIRECT.open(url, timeout=SILENCE) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _guarded(server: int) -> "subprocess.Popen[bytes]":
    """Start the guard in a session of its own, which Ctrl-C in the terminal does not reach."""
    null = subprocess.DEVNULL
    return subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, str(server)], stdin=subprocess.PIPE, stdout=null, stderr=null, start_new_session=True
    )
