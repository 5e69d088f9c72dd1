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
from buckets import served
from commands import free_port

from agepipe.config.runtime import Runtime
from agepipe.config.stages import LearnSettings, SearchSettings
from agepipe.core.errors import ConfigError, WorkerError
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
    here, store = socket.gethostname(), f"sqlite:///{tmp_path}/mlflow.db"
    return Needs(version("agepipe"), here, f"{address}/api", store, "", str(tmp_path / "token"))


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A workspace with a token; the cache of this machine is elsewhere."""
    monkeypatch.setenv("AGEPIPE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "token").touch()
    return f"file://{tmp_path}/shared"


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
        ({"token": "/nowhere/token"}, "/nowhere"),
        ({"bucket": "file:///nowhere", "token": "token"}, "file:///nowhere"),
        ({"bucket": "gs://bucket/work", "token": "token"}, "agepipe[gcs]"),
    ],
)
def test_what_a_worker_lacks_is_named(needs: Needs, change: dict[str, object], named: str) -> None:
    assert named in lacking(needs._replace(**change))


def test_a_worker_that_shares_only_the_bucket_lacks_nothing(needs: Needs, bucket: str, tmp_path: Path) -> None:
    assert lacking(needs._replace(bucket=bucket, token="token")) == ""
    (tmp_path / "shared" / "token").unlink()
    assert bucket in lacking(needs._replace(bucket=bucket, token="token"))


def test_a_clock_that_is_off_is_refused_and_a_slow_answer_is_not() -> None:
    cluster.check_clocks({"tcp://b:1": 1000.0, "tcp://c:1": 1190.0}, sent=1000.0, received=1200.0)
    for clock in (900.0, 1300.0):
        with pytest.raises(WorkerError, match=r"tcp://c:1 .*clock .* 100 s"):
            cluster.check_clocks({"tcp://b:1": 1000.0, "tcp://c:1": clock}, sent=1000.0, received=1200.0)


def test_a_bucket_that_does_not_exist_or_refuses_is_named(needs: Needs) -> None:
    with served():
        assert "s3://nowhere/work" in lacking(needs._replace(bucket="s3://nowhere/work", token="token"))


def test_weights_that_only_the_searching_machine_has_are_refused(bucket: str, tmp_path: Path) -> None:
    runtime = Runtime.model_validate({"workspace": bucket, "runner": "dask", "scheduler": "tcp://127.0.0.1:1"})
    (file := tmp_path / "weights.pt").touch()
    given, none = LearnSettings(weights=str(file)), SearchSettings()
    with pytest.raises(ConfigError, match=f"learn.weights: '{file}'"):
        cluster.check_weights(given, none, runtime)
    cluster.check_weights(LearnSettings(), none, runtime)
    cluster.check_weights(given, none, Runtime(workspace=tmp_path, runner="dask", scheduler="tcp://127.0.0.1:1"))
    with pytest.raises(ConfigError, match=f"learn.weights: '{file}'"):
        cluster.check_weights(LearnSettings(), SearchSettings(grid={"weights": ("none", str(file))}), runtime)


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
