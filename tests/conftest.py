"""Fixtures that several parts of the suite share."""

import os
from pathlib import Path

import pytest

from agepipe.config import Where


@pytest.fixture
def where(tmp_path: Path) -> Where:
    """A workspace and a tracking store of the test's own."""
    return Where(
        workspace=tmp_path / "workspace", tracking=f"sqlite:///{tmp_path}/mlruns/mlflow.db", device="cpu", workers=2
    )


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
