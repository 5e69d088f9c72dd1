"""What `agepipe up` keeps and `agepipe down` ends; `test_up.py` has what the kept servers do."""

import base64
import json
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from commands import agepipe, free_port

from agepipe.config.runtime import Runtime
from agepipe.core.errors import ServiceError
from flows import access, services
from flows.services import Service, Services


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that someone listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@contextmanager
def sleeping() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that would live for minutes."""
    with sleeping() as process:
        yield process


def keep(runtime: Runtime, pid: int, started: float) -> None:
    """Write the state that `up` would have written."""
    one = Service(name="mlflow", pid=pid, started=started, url="http://127.0.0.1:1", log=runtime.workspace / "log")
    runtime.workspace.mkdir(parents=True, exist_ok=True)
    kept = Services(services=(one,), workspace=services.identity(runtime.workspace))
    services.state_file(runtime).write_text(kept.model_dump_json(), encoding="utf-8")


def test_what_up_starts_uses_its_workspace_and_store(runtime: Runtime) -> None:
    code = "from agepipe.config.runtime import Runtime; print(Runtime().workspace); print(Runtime().tracking)"
    kept = services.environ(runtime, None)
    done = subprocess.run([sys.executable, "-c", code], env=kept, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(runtime.workspace), runtime.tracking]


@pytest.mark.parametrize("option", ["prefect-port", "mlflow-port"])
def test_a_port_in_use_is_refused_by_name(option: str, taken: int, runtime: Runtime) -> None:
    ports = {"prefect-port": free_port(), "mlflow-port": free_port(), option: taken}
    with pytest.raises(ServiceError, match=f"--{option}: port {taken} is in use; give another, such as {taken + 1}"):
        services.up(runtime, ports["prefect-port"], ports["mlflow-port"])
    assert not services.state_file(runtime).exists()


def test_down_leaves_a_stranger_with_the_same_number_alone(runtime: Runtime, sleeper: subprocess.Popen[bytes]) -> None:
    keep(runtime, sleeper.pid, psutil.Process(sleeper.pid).create_time() - 60)
    assert not services.running(runtime).alive
    assert services.down(runtime) == []
    assert sleeper.poll() is None
    assert not services.state_file(runtime).exists()


def test_down_ends_what_was_started(runtime: Runtime, sleeper: subprocess.Popen[bytes]) -> None:
    keep(runtime, sleeper.pid, psutil.Process(sleeper.pid).create_time())
    assert services.running(runtime).alive
    assert services.down(runtime) == ["mlflow"]
    assert sleeper.poll() is not None
    assert services.down(runtime) == []


def test_a_copied_workspace_has_no_part_in_the_servers_of_the_original(
    runtime: Runtime, sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    keep(runtime, sleeper.pid, psutil.Process(sleeper.pid).create_time())
    shutil.copytree(runtime.workspace, tmp_path / "copy")
    copy = runtime.model_copy(update={"workspace": tmp_path / "copy"})
    assert not services.running(copy).alive
    assert services.running(copy).url("mlflow") is None
    assert services.down(copy) == []
    assert services.state_file(copy).exists(), "it may be the only word of servers that run"
    with sleeping() as other:
        keep(copy, other.pid, psutil.Process(other.pid).create_time())
        assert services.down(copy) == ["mlflow"]
        assert other.poll() is not None
    assert sleeper.poll() is None
    assert services.running(runtime).alive


def test_a_moved_workspace_ends_its_own_servers(
    runtime: Runtime, sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    keep(runtime, sleeper.pid, psutil.Process(sleeper.pid).create_time())
    moved = runtime.model_copy(update={"workspace": runtime.workspace.rename(tmp_path / "moved")})
    shutil.copytree(moved.workspace, runtime.workspace)  # a copy that lies where the original lay
    assert services.down(runtime) == []
    assert services.down(moved) == ["mlflow"]
    assert sleeper.poll() is not None


def test_a_process_that_is_gone_has_no_address(runtime: Runtime, sleeper: subprocess.Popen[bytes]) -> None:
    keep(runtime, sleeper.pid, psutil.Process(sleeper.pid).create_time())
    sleeper.kill()
    sleeper.wait()
    assert services.running(runtime).url("mlflow") is None
    assert services.running(runtime).api_url is None


@pytest.mark.parametrize("content", ["", "not JSON", '{"services": 3}'])
def test_a_state_file_that_cannot_be_read_is_an_error(content: str, runtime: Runtime) -> None:
    runtime.workspace.mkdir(parents=True)
    services.state_file(runtime).write_text(content, encoding="utf-8")
    with pytest.raises(ServiceError, match=r"services\.json cannot be read"):
        services.running(runtime)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_up_leaves_nothing_running_when_the_flows_are_refused(tmp_path: Path) -> None:
    (tmp_path / "prefect.yaml").write_text("deployments:\n  - name: broken\n    entrypoint: no.such.flow\n")
    done = agepipe(tmp_path, "up", "--prefect-port", free_port(), "--mlflow-port", free_port(), timeout=240)
    assert done.returncode == 1
    assert "error: prefect.yaml: `prefect deploy --all` failed" in done.stderr
    assert not services.state_file(Runtime(workspace=tmp_path / "workspace")).exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_up_leaves_a_tracking_server_that_runs_elsewhere_to_others(tmp_path: Path, mlflow_server: Runtime) -> None:
    words = ("--prefect-port", free_port(), "--tracking", mlflow_server.tracking)
    try:
        done = agepipe(tmp_path, "up", *words, timeout=240)
        assert done.returncode == 0, done.stderr
        assert f"{mlflow_server.tracking}/#/experiments/" in done.stdout
        check_pool(Runtime(workspace=tmp_path / "workspace"))
    finally:
        last = agepipe(tmp_path, "down")
    assert last.stdout.strip() == "Stopped: worker, prefect."


def check_pool(runtime: Runtime) -> None:
    """The pool lets a run change nothing of its process, though the working folder has no `prefect.yaml`."""
    url = f"{services.running(runtime).api_url}/work_pools/{services.POOL}"
    asked = urllib.request.Request(url)
    asked.add_header("Authorization", "Basic " + base64.b64encode(access.kept(runtime).encode()).decode())
    with urllib.request.urlopen(asked, timeout=30) as answer:
        template = json.load(answer)["base_job_template"]
    assert (template["variables"]["properties"], template["variables"]["additionalProperties"]) == ({}, False)


@pytest.mark.parametrize(
    ("host", "here"),
    [("127.0.0.1", "127.0.0.1:80"), ("0.0.0.0", "127.0.0.1:80"), ("::", "[::1]:80"), ("10.0.0.5", "10.0.0.5:80")],
)
def test_this_machine_reaches_its_servers_on_every_kind_of_host(host: str, here: str) -> None:
    assert services.netloc(services.reached(host), 80) == here
