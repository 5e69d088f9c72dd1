"""The temporary Prefect server ends with its command, whatever ends that, also while the server still starts."""

import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from commands import environ, lives

from agepipe.config.stages import Config
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


def run(folder: Path, *more: str) -> "subprocess.Popen[bytes]":
    """A command that needs a temporary server."""
    words = ["run", "sample", *more, "--workspace", str(folder / "workspace")]
    words += ["--tracking", f"sqlite:///{folder}/mlruns/mlflow.db"]
    with (folder / "output").open("wb") as output:
        return subprocess.Popen([*COMMAND, *words], env=environ(), stdout=output, stderr=output)


def end(command: "subprocess.Popen[bytes]", ending: signal.Signals) -> None:
    """Signal the command and see that its server and the server's guard end with it."""
    family = [one for word in ("create_app", "read -r _") for one in children(psutil.Process(command.pid), word)]
    assert len(family) >= 2
    command.send_signal(ending)
    assert command.wait(timeout=END_LIMIT) != 0
    limit = time.monotonic() + END_LIMIT
    while left := [process for process in family if lives(process)]:
        assert time.monotonic() < limit, f"{ending.name}: {left} live on"
        time.sleep(0.1)


@pytest.mark.slow
def test_the_server_answers_nobody_but_its_command_and_ends_with_it_by_ctrl_c(tmp_path: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    command = run(tmp_path)
    answers: list[int] = []
    limit = time.monotonic() + START_LIMIT
    while 401 not in answers:
        assert command.poll() is None, (tmp_path / "output").read_text()
        assert time.monotonic() < limit, answers
        servers = children(psutil.Process(command.pid), "create_app")
        answers += [status(f"http://127.0.0.1:{port}") for one in servers for port in ports(one)]
        time.sleep(0.1)
    end(command, signal.SIGINT)
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


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.slow
def test_a_server_that_still_starts_ends_with_the_command(ending: signal.Signals, tmp_path: Path) -> None:
    command = run(tmp_path)
    limit = time.monotonic() + START_LIMIT
    while not children(psutil.Process(command.pid), "read -r _"):
        assert command.poll() is None, (tmp_path / "output").read_text()
        assert time.monotonic() < limit, "no temporary server was started"
        time.sleep(0.05)
    end(command, ending)


@pytest.mark.slow
def test_ctrl_c_while_faces_are_drawn_ends_the_command_without_drawing_the_rest(tmp_path: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = run(tmp_path)
    limit = time.monotonic() + START_LIMIT
    while not (drawn := list(tmp_path.glob("workspace/samples/*/*.jpg"))):
        assert command.poll() is None, (tmp_path / "output").read_text()
        assert time.monotonic() < limit, "no face was drawn"
        time.sleep(0.05)
    end(command, signal.SIGINT)
    assert len(list(drawn[0].parent.glob("*.jpg"))) < Config().source.sample_count / 2


@pytest.mark.slow
def test_photographs_are_read_while_the_server_starts(tmp_path: Path, drawn: Path) -> None:
    words = ["ingest.size=36", "learn.size=32", "learn.network=shufflenet_v2_x0_5", "search.grid={}", "final.epochs=1"]
    command = run(tmp_path, "--data", str(drawn), *words, "evaluate.draws=200")
    output = tmp_path / "output"
    try:
        assert command.wait(timeout=START_LIMIT) == 0, output.read_text()
    finally:
        command.kill()
        command.wait()
    (manifest,) = (tmp_path / "workspace" / "datasets").glob("*/manifest.json")
    with closing(sqlite3.connect(tmp_path / "workspace" / "prefect" / "prefect.db")) as database:
        ((began,),) = database.execute("SELECT min(start_time) FROM flow_run")
    assert manifest.stat().st_mtime < datetime.fromisoformat(began).replace(tzinfo=UTC).timestamp()
    assert "UserWarning" not in output.read_text()


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
from agepipe.config.runtime import Runtime
from flows import environment
environment.prepare(Runtime(workspace=Path("workspace")), None)
Path("workspace/prefect/prefect.db").mkdir()
from flows.temporary import TemporaryServer
try:
    TemporaryServer(Path("workspace/prefect")).wait()
except ServiceError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_server_that_dies_as_it_starts_is_noticed_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BROKEN]
    done = subprocess.run(command, env=environ(), cwd=tmp_path, capture_output=True, text=True, timeout=200, check=True)
    (said,) = done.stdout.splitlines()
    assert " s (" not in said  # it did not wait for the limit
    assert done.stderr == ""
