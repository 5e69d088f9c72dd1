"""What the tests of stages share."""

import shutil
from pathlib import Path

import pytest
from small_stages import calls, chain

from agepipe.config.runtime import Runtime
from agepipe.config.stages import IngestSettings


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Each test counts from zero."""
    calls.clear()


@pytest.fixture(scope="session")
def computed(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Path:
    """A workspace in which `chain` has run."""
    workspace = tmp_path_factory.mktemp("computed") / "workspace"
    chain(IngestSettings(), Runtime(workspace=workspace))
    return workspace


@pytest.fixture
def ready(computed: Path, runtime: Runtime) -> Runtime:
    """`runtime`, with a copy of the workspace in which `chain` has run."""
    shutil.copytree(computed, runtime.workspace)
    calls.clear()
    return runtime
