"""What is asked of the workers of a Dask cluster before the first trial; the cluster is real, and so are its faults."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from answering import Answer, answering
from commands import free_port

from agepipe.config.runtime import Runtime
from agepipe.core.errors import WorkerError
from agepipe.core.provenance import version
from flows import cluster
from flows.cluster import Needs, lacking


@pytest.fixture
def address() -> Iterator[str]:
    """A server that answers everything."""
    with answering(Answer(200, "{}")) as found:
        yield found


@pytest.fixture
def needs(address: str, tmp_path: Path) -> Needs:
    """What this machine has."""
    (tmp_path / "token").touch()
    here = socket.gethostname()
    return Needs(version("agepipe"), here, f"{address}/api", f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "token")


def test_a_worker_that_has_everything_lacks_nothing(needs: Needs, address: str) -> None:
    assert lacking(needs) == ""
    assert lacking(needs._replace(host="other", tracking=address)) == ""


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"version": "0.0.1"}, "0.0.1"),
        ({"prefect": "http://127.0.0.1:9/api"}, "PREFECT_API_URL"),
        ({"tracking": "http://127.0.0.1:9"}, "http://127.0.0.1:9"),
        ({"host": "other"}, "--tracking"),
        ({"token": Path("/nowhere/token")}, "/nowhere"),
    ],
)
def test_what_a_worker_lacks_is_named(needs: Needs, change: dict[str, object], named: str) -> None:
    assert named in lacking(needs._replace(**change))


def test_a_scheduler_that_does_not_answer_is_named(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "SECONDS", 1)
    there = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(WorkerError, match=there):
        cluster.check(runtime.model_copy(update={"runner": "dask", "scheduler": there}), "http://127.0.0.1:9/api")


@contextmanager
def _dask(*words: str, prefix: tuple[str, ...] = ()) -> Iterator[None]:
    with subprocess.Popen([*prefix, sys.executable, "-m", "distributed.cli." + words[0], *words[1:]]) as process:
        try:
            yield
        finally:
            process.terminate()


@pytest.mark.slow
def test_a_worker_that_does_not_see_the_workspace_is_named(runtime: Runtime, address: str, tmp_path: Path) -> None:
    """In a mount namespace of its own, an empty folder lies over the workspace, as on another machine."""
    hidden = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {tmp_path} && exec "$@"', "sh")
    runtime.workspace.mkdir(parents=True)
    if not shutil.which("unshare") or subprocess.run([*hidden, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs a mount namespace of its own, which only root may make")
    there = f"tcp://127.0.0.1:{(port := free_port())}"
    asked = runtime.model_copy(update={"runner": "dask", "scheduler": there})
    common = ("--no-dashboard", "--host", "127.0.0.1")
    with _dask("dask_scheduler", "--port", str(port), *common):
        with pytest.raises(WorkerError, match="no worker"):
            cluster.check(asked, f"{address}/api")
        worker = ("dask_worker", there, "--nthreads", "1", "--no-nanny", "--no-dashboard")
        with _dask(*worker, "--name", "sees"):
            _until(asked, f"{address}/api", "")
            with _dask(*worker, "--name", "blind", prefix=hidden):
                _until(asked, f"{address}/api", f"does not see the workspace {runtime.workspace}")


def _until(asked: Runtime, api_url: str, said: str) -> None:
    """Until the check says this; workers take seconds to register."""
    limit, found = time.monotonic() + 60, "nothing"
    while time.monotonic() < limit:
        try:
            cluster.check(asked, api_url)
            found = ""
        except WorkerError as error:
            found = str(error)
        if said == found or (said and said in found):
            return
        time.sleep(0.5)
    raise AssertionError(found)
