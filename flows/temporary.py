"""The temporary Prefect server of a command, which ends with the command even after SIGTERM or SIGKILL.

It is started before Prefect is imported and given to Prefect as `PREFECT_API_URL`: so it starts while the command
imports its flows and reads photographs, and the command does not import Prefect's server itself, which takes seconds.

An exit handler stops the server, but does not run after a signal. A small guard process therefore waits on a pipe whose
other end belongs to the command: the system closes that end when the command has ended.
"""

import atexit
import os
import re
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from agepipe.core.errors import ServiceError

GRACE = 10
"""Seconds between SIGTERM and SIGKILL."""
SILENCE = 2.0
"""Timeout of a health request in seconds."""
_GUARD = f'read -r _; kill "$0" && sleep {GRACE} && kill -9 "$0"'
"""Shell command that waits for the end of the pipe; `$0` is the process id of the server."""
_EPHEMERAL = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR",  # goes to no terminal; used if the server ends
    "PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1",
}  # fmt: skip
"""What Prefect sets for its own temporary servers, which run only the services that a flow needs."""
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class TemporaryServer:
    """A Prefect server on a free port of this machine, which starts when this object is created.

    Args:
        home: an existing folder without another program's prefect.toml; the server's working folder.
    """

    def __init__(self, home: Path) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  read when the server has ended
        with socket.create_server(("127.0.0.1", 0)) as listener:  # passed on, so that no other process takes the port
            self.api_url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
            self._process = subprocess.Popen(
                [
                    sys.executable, "-P", "-m", "uvicorn", "--app-dir", sysconfig.get_path("purelib"), "--factory",
                    "prefect.server.api.server:create_app", "--fd", str(listener.fileno()), "--log-level", "error",
                    "--lifespan", "on",
                ],
                pass_fds=[listener.fileno()], env={**os.environ, **_EPHEMERAL}, stdout=self._log, stderr=self._log,
                cwd=home, start_new_session=True,  # after Ctrl-C the command still reports how its run ended
            )  # fmt: skip
        self._guard = _guarded(self._process.pid)
        atexit.register(self.stop)

    def wait(self) -> None:
        """Wait until the server answers.

        Raises:
            ServiceError: the server ended, or did not answer in time.
        """
        from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS  # reads the environment

        seconds = PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
        limit = time.monotonic() + seconds
        while not _answers(f"{self.api_url}/health"):
            if self._process.poll() is not None:
                raise ServiceError(f"Prefect's temporary server ended during its start: {self._error()}")
            if time.monotonic() > limit:
                raise ServiceError(
                    f"Prefect's temporary server did not answer in {seconds:.0f} s ({self._error()}); try again on a "
                    "less busy machine, or keep a server with `agepipe up`."
                )
            time.sleep(0.1)

    def _error(self) -> str:
        self._log.seek(0)
        return reason(self._log.read().decode(errors="replace"))

    def stop(self) -> None:
        """Stop the server, then its guard."""
        self._process.terminate()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._guard.kill()
        self._guard.communicate()
        self._log.close()


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
