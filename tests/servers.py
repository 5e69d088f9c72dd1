"""A real MLflow server that tests start, kill and start again on the same database."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Self

from benchmarks.answering import wait_for

SWITCHES = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


class MlflowServer:
    """One server with a database of its own in a folder; it takes its whole process group along when it ends."""

    def __init__(self, home: Path, artifacts: str = "") -> None:
        """With `artifacts`, the URI of a store, clients use that store themselves."""
        self.home = home
        passed_on = ("--artifacts-destination", str(home / "artifacts"))
        self._artifacts = ("--no-serve-artifacts", "--default-artifact-root", artifacts) if artifacts else passed_on
        self.home.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it and wait until it answers."""
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self.home}/mlflow.db", *self._artifacts,
        ]  # fmt: skip
        log = self.home / "log.txt"
        with log.open("a") as output:
            self._process = subprocess.Popen(
                command, env={**os.environ, **SWITCHES}, stdout=output, stderr=output, cwd=self.home,
                start_new_session=True,
            )  # fmt: skip
        wait_for(f"{self.address}/health", self._process, log)
        return self

    def kill(self) -> None:
        """End it as a power cut would: SIGKILL to it and its workers."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in good order."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, how)
            self._process.wait(30)
