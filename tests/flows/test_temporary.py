"""The temporary Prefect server ends with its command, whatever ends that, also while the server still starts."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from flows.temporary import reason

pytestmark = pytest.mark.timeout(300)

COMMAND = (sys.executable, "-c", "from flows.cli import main; main()")
START_LIMIT, END_LIMIT = 200.0, 40.0
"""Seconds."""


def children(process: psutil.Process, word: str) -> list[psutil.Process]:
    """Those whose command line has the word."""
    return [child for child in process.children(recursive=True) if has(child, word)]


def has(process: psutil.Process, word: str) -> bool:
    try:
        return any(word in part for part in process.cmdline())
    except psutil.NoSuchProcess:  # it has ended since it was listed
        return False


def ports(process: psutil.Process) -> list[int]:
    """Those on which it listens."""
    try:
        return [one.laddr.port for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
    except psutil.NoSuchProcess:
        return []


def gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.slow
def test_the_server_answers_nobody_but_its_command(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    words = ["run", "sample", "--workspace", str(tmp_path / "workspace")]
    words += ["--tracking", f"sqlite:///{tmp_path}/mlruns/mlflow.db"]
    with subprocess.Popen([*COMMAND, *words], env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as command:
        answers: list[int] = []
        limit = time.monotonic() + START_LIMIT
        while command.poll() is None and time.monotonic() < limit and 401 not in answers:
            servers = children(psutil.Process(command.pid), "create_app")
            answers += [status(f"http://127.0.0.1:{port}") for one in servers for port in ports(one)]
            time.sleep(0.1)
        command.terminate()
        command.communicate(timeout=START_LIMIT)
    assert 401 in answers
    assert set(answers) <= {0, 401}


def status(server: str) -> int:
    """Of a request for the version, made without a password; 0 while nothing answers."""
    try:
        with urllib.request.urlopen(f"{server}/api/admin/version", timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.mark.parametrize(
    "ending", [signal.SIGTERM, *(pytest.param(one, marks=pytest.mark.slow) for one in (signal.SIGINT, signal.SIGKILL))]
)
@pytest.mark.slow
def test_the_server_ends_with_the_command(ending: signal.Signals, tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    words = ["run", "sample", "--workspace", str(tmp_path / "workspace")]
    words += ["--tracking", f"sqlite:///{tmp_path}/mlruns/mlflow.db"]
    with (tmp_path / "output").open("wb") as output:
        command = subprocess.Popen([*COMMAND, *words], env=environ, stdout=output, stderr=output)
    limit = time.monotonic() + START_LIMIT
    while len(guarded := children(psutil.Process(command.pid), "read -r _")) < 1:
        assert command.poll() is None, (tmp_path / "output").read_text()
        assert time.monotonic() < limit, "no temporary server was started"
        time.sleep(0.05)
    server = children(psutil.Process(command.pid), "create_app")
    assert server
    command.send_signal(ending)
    assert command.wait(timeout=END_LIMIT) != 0
    limit = time.monotonic() + END_LIMIT
    while left := [process for process in (*server, *guarded) if not gone(process)]:
        assert time.monotonic() < limit, f"{ending.name}: {left} live on"
        time.sleep(0.1)


def test_why_a_server_ended_is_the_last_error_of_its_log() -> None:
    log = (
        "INFO: starting\nTraceback (most recent call last):\nsqlalchemy.exc.OperationalError: (sqlite3) no\nExiting.\n"
    )
    assert reason(log) == "sqlalchemy.exc.OperationalError: (sqlite3) no"
    assert reason("a word\n\n") == "a word"
    assert reason("")


BROKEN = """
import time
from pathlib import Path
from agepipe.core.errors import ServiceError
from agepipe.config.runtime import Where
from flows import environment
environment.prepare(Where(workspace=Path("workspace")), None)
Path("workspace/prefect/prefect.db").mkdir()
from flows.temporary import TemporaryServer
try:
    TemporaryServer().start(timeout=250)
except ServiceError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_server_that_dies_as_it_starts_is_noticed_at_once(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-c", BROKEN],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    (said,) = done.stdout.splitlines()
    assert "250" not in said  # it did not wait for the limit
    assert done.stderr == ""
