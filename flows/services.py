"""`agepipe up` and `down`: start and stop a Prefect server, a worker and the MLflow UI.

`workspace/services.json` holds each process with its start time and the identity of the workspace, so that `down` stops
only these: neither an unrelated process with the same id, nor the servers of a workspace that this one is a copy of.
"""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from agepipe.config.runtime import Runtime
from agepipe.core.errors import ServiceError
from agepipe.core.ports import bound, is_loopback
from agepipe.registry import store, tracking
from agepipe.serving.web.mlflow_page import AUTH, HOST
from flows import access, environment, shell
from flows.pull import DIRECTORY

POOL = "agepipe"
TEMPLATE = Path(__file__).with_name("pools") / "process.json"
"""Job template of the pool, which lets a run change nothing; Prefect's default lets a run name a command."""
START_LIMIT = 180.0
"""Seconds to wait for a server to answer; a busy laptop needs half a minute."""


class Service(BaseModel):
    """One process that `up` started."""

    model_config = ConfigDict(frozen=True)

    name: str
    pid: int
    started: float
    url: str | None
    log: Path

    def process(self) -> psutil.Process | None:
        """The process; None if it has ended or its id belongs to another process."""
        try:
            found = psutil.Process(self.pid)
            alive = found.status() != psutil.STATUS_ZOMBIE and abs(found.create_time() - self.started) < 1.0
        except psutil.NoSuchProcess:
            return None
        return found if alive else None


class Services(BaseModel):
    """All processes that `up` started."""

    model_config = ConfigDict(frozen=True)

    services: tuple[Service, ...] = ()
    workspace: str = ""
    """Result of `identity` for their workspace."""
    host: str = "127.0.0.1"
    """Address on which the servers listen."""

    def url(self, name: str) -> str | None:
        """The address of a service; None if it does not run."""
        return next((item.url for item in self.services if item.name == name and item.process()), None)

    @property
    def api_url(self) -> str | None:
        """Value of PREFECT_API_URL for the running server; None if there is none."""
        url = self.url("prefect")
        return f"{url}/api" if url else None

    def described(self) -> str:
        """A sentence that names the running services and their addresses."""
        there = [f"{item.name} {item.url or ''}".strip() for item in self.services if item.process()]
        return f"Already running{'' if is_loopback(self.host) else f' on {self.host}'}: {', '.join(there)}."

    @property
    def whole(self) -> bool:
        """Whether all services still run."""
        return bool(self.services) and all(item.process() for item in self.services)

    @property
    def alive(self) -> bool:
        """Whether any service still runs."""
        return any(item.process() for item in self.services)


def state_file(runtime: Runtime) -> Path:
    """The file that lists the started processes."""
    return runtime.workspace / "services.json"


def identity(workspace: Path) -> str:
    """Tell a workspace from its copies: device and inode of the folder, which survive a move."""
    status = workspace.stat()
    return f"{status.st_dev}:{status.st_ino}"


def running(runtime: Runtime) -> Services:
    """The services that `up` started on this workspace, running or not; empty if `up` was never called on it.

    Raises:
        ServiceError: the file that lists them cannot be read.
    """
    try:
        found = Services.model_validate_json(state_file(runtime).read_text(encoding="utf-8"))
        return found if found.workspace == identity(runtime.workspace) else Services()
    except FileNotFoundError:
        return Services()
    except ValidationError as error:
        raise ServiceError(f"{state_file(runtime)} cannot be read; end the servers by hand and delete it.") from error


def up(runtime: Runtime, prefect_port: int, mlflow_port: int, host: str = "127.0.0.1") -> Services:
    """Start the Prefect server, a worker and, on a local store, the MLflow UI, and wait until they answer.

    Args:
        runtime: workspace and tracking store.
        prefect_port: port of the Prefect server.
        mlflow_port: port of the MLflow UI.
        host: address on which both listen.

    Raises:
        ServiceError: they already run, a port is in use, a server ended or did not answer, or Prefect refused the
            work pool; none is left running.
    """
    if (there := running(runtime)).alive:
        raise ServiceError(f"{there.described()} `agepipe down` stops them.")
    auth = access.made(runtime)
    shell.bypass_proxies(reached(host))
    protected = {
        "prefect": {
            **access.server(auth, f"http://{netloc(reached(host), prefect_port)}"),
            "PREFECT_UI_API_URL": "/api",  # relative, so that it fits any host name the page is opened by
        },
        "mlflow": {AUTH: auth, HOST: host},
    }
    servers = [("prefect", _prefect_server(host, prefect_port), prefect_port, "/api/health")]
    if store.database(runtime):  # a remote MLflow server has its own UI
        servers += [("mlflow", _mlflow_ui(runtime, host, mlflow_port), mlflow_port, "/health")]
    for name, _, port, _ in servers:
        bound(f"--{name}-port", host, port).close()
    tracking.prepare(runtime, reading=True)  # the UI also shows a deleted experiment
    started: list[Service] = []
    try:
        for name, command, port, _ in servers:
            started.append(_start(runtime, name, command, f"http://{netloc(reached(host), port)}", protected[name]))
        for service, (_, _, _, path) in zip(started, servers, strict=True):
            _wait(service, path)
        api_url = f"{started[0].url}/api"
        make_pool(runtime, api_url)
        started.append(_start(runtime, "worker", _worker(), None, environ(runtime, api_url)))
    except BaseException:
        for item in started:
            _end(item)
        raise
    services = Services(services=tuple(started), workspace=identity(runtime.workspace), host=host)
    state_file(runtime).write_text(services.model_dump_json(indent=2), encoding="utf-8")
    return services


def down(runtime: Runtime) -> list[str]:
    """Stop the services that `up` started; returns the names of those that were running."""
    kept = running(runtime).services
    ended = [item.name for item in reversed(kept) if _end(item)]
    if kept:  # otherwise the file is missing or lists the servers of another workspace
        state_file(runtime).unlink(missing_ok=True)
    return ended


def environ(runtime: Runtime, api_url: str | None) -> dict[str, str]:
    """Environment of a service: this one, with the addresses and passwords of the running servers."""
    extra = {"PREFECT_API_URL": api_url, **access.client(access.kept(runtime))} if api_url else {}
    stores = {
        "AGEPIPE_WORKSPACE": runtime.bucket or str(runtime.workspace), "AGEPIPE_TRACKING": store.address(runtime),
        "AGEPIPE_EXPERIMENT": runtime.experiment,
    }  # fmt: skip
    ours = {**environment.settings(runtime), **stores, **extra, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    inherited = {name: value for name, value in environment.inherited().items() if name != "PREFECT_API_URL"}
    return {**inherited, **ours, DIRECTORY: os.environ.get(DIRECTORY) or str(Path.cwd())}


def make_pool(runtime: Runtime, api_url: str) -> None:
    """Create or update the work pool, before a worker polls it.

    Raises:
        ServiceError: the command failed; includes its last message.
    """
    _call(runtime, api_url, [sys.executable, "-P", "-m", "flows.pool"], "python -m flows.pool")


def tell_prefect(runtime: Runtime, api_url: str, *words: str) -> None:
    """Run a command of the Prefect CLI.

    Raises:
        ServiceError: the command failed; includes its last message.
    """
    _call(runtime, api_url, [*_tool("prefect"), "--no-prompt", *words], " ".join(["prefect", *words]))


def _call(runtime: Runtime, api_url: str, command: Sequence[str], told: str) -> None:
    done = subprocess.run(command, env=environ(runtime, api_url), capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise ServiceError(f"`{told}` failed: {' '.join(said)}")


def _tool(name: str) -> list[str]:
    return [str(Path(sys.executable).with_name(name))]


def reached(host: str) -> str:
    """The address at which this machine reaches a server that listens on a host."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def netloc(host: str, port: int) -> str:
    """HOST:PORT for an address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _prefect_server(host: str, port: int) -> list[str]:
    return [sys.executable, "-P", "-m", "flows.pages", host, str(port)]


def _mlflow_ui(runtime: Runtime, host: str, port: int) -> list[str]:
    if not entry_points(group="mlflow.app", name="agepipe"):
        raise ServiceError("The installed agepipe is older than this code; install it again (`uv sync`).")
    bind = ["--host", host, "--port", str(port), "--workers", "1", "--app-name", "agepipe"]
    if not is_loopback(host):  # `Guard` checks Host and Origin instead: MLflow does not know this machine's names
        bind += ["--allowed-hosts", "*", "--cors-allowed-origins", "*"]
    return [*_tool("mlflow"), "server", "--backend-store-uri", store.address(runtime), *bind]


def _worker() -> list[str]:
    # If the pool is deleted while the worker runs, the worker creates it again, from this template.
    pool = ["--pool", POOL, "--type", "process", "--base-job-template", str(TEMPLATE)]
    return [*_tool("prefect"), "worker", "start", *pool, "--name", "agepipe-up"]


def _start(runtime: Runtime, name: str, command: Sequence[str], url: str | None, extra: Mapping[str, str]) -> Service:
    log = runtime.workspace / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment.prefect_home(runtime).mkdir(exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environ(runtime, None), **extra},
            cwd=environment.prefect_home(runtime),  # a folder without another program's prefect.toml or .env
            start_new_session=True,
        )
    return Service(name=name, pid=process.pid, started=psutil.Process(process.pid).create_time(), url=url, log=log)


def _wait(service: Service, path: str) -> None:
    limit = time.monotonic() + START_LIMIT
    while time.monotonic() < limit:
        if service.process() is None:
            raise ServiceError(f"The {service.name} server ended during its start; see {service.log}.")
        if _answers(f"{service.url}{path}"):
            return
        time.sleep(0.5)
    raise ServiceError(f"The {service.name} server did not answer in {START_LIMIT:.0f} s; see {service.log}.")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _end(service: Service) -> bool:
    process = service.process()
    if process is None:
        return False
    end_family(process)
    return True


def end_family(process: psutil.Process) -> None:
    """Terminate a process and its descendants; kill those that still run after 10 s; returns when all have ended."""
    family = [process, *process.children(recursive=True)]
    for member in family:
        _signal(member, "terminate")
    _, stubborn = psutil.wait_procs(family, timeout=10)
    for member in stubborn:
        _signal(member, "kill")
    psutil.wait_procs(stubborn, timeout=10)


def _signal(process: psutil.Process, action: str) -> None:
    try:
        getattr(process, action)()
    except psutil.NoSuchProcess:
        return
