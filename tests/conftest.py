"""Fixtures that several parts of the suite share."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, started
from filelock import FileLock
from hostile import Hostile
from servers import MlflowServer
from workspaces import runtime_in

from agepipe.config.runtime import Runtime
from agepipe.registry import tracking
from flows import environment


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A workspace and a tracking store of the test's own."""
    return runtime_in(tmp_path, workers=2)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking store with an experiment and no run; MLflow takes seconds to make it, so all processes share it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "empty" / "mlruns"
    folder.parent.mkdir(exist_ok=True)
    with FileLock(folder.with_name("lock")):
        if not folder.exists():
            tracking.prepare(Runtime(tracking=f"sqlite:///{folder}/mlflow.db"))
    return folder


@pytest.fixture
def tracked(runtime: Runtime, empty_store: Path, tmp_path: Path) -> Runtime:
    """`runtime`, with the store already there: a copy, which `prepare` then relocates."""
    shutil.copytree(empty_store, tmp_path / "mlruns")
    return runtime


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with the real photographs, beside the checkout or named by AGEPIPE_SHARED."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("AGEPIPE_SHARED", beside))
    if not folder.is_dir():
        pytest.skip(f"needs the UTKFace photographs; there is no folder {folder} (set AGEPIPE_SHARED to have one)")
    return folder


@pytest.fixture(scope="session")
def sample_archive(shared: Path) -> Path:
    """700 real chips, 50 of each range."""
    return shared / "utkface-sample.tar"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A real Chromium, started once for all tests of pages."""
    with started() as running:
        yield running


@pytest.fixture
def hostile(tmp_path: Path) -> Hostile:
    """A file that nothing may execute; the test asks whether something did."""
    return Hostile(tmp_path / "executed")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowServer]:
    """A real MLflow server that can be killed and started again."""
    one = MlflowServer(tmp_path / "server").start()
    try:
        yield one
    finally:
        one.stop()


@pytest.fixture
def mlflow_server(server: MlflowServer, tmp_path: Path) -> Runtime:
    """A workspace whose tracking store is a real MLflow server with a database of its own."""
    return Runtime(workspace=tmp_path / "workspace", tracking=server.address)


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A temporary Prefect server with its own database, for all tests of the session that run flows."""
    home = tmp_path_factory.mktemp("prefect")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(home))
        for name, value in environment.settings(Runtime(workspace=home)).items():
            patch.setenv(name, value)
        from prefect.testing.utilities import prefect_test_harness

        with prefect_test_harness(server_startup_timeout=120):
            yield
