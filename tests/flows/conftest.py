"""A pipeline small enough for tests, on drawn faces: real in every part, and quick."""

from pathlib import Path

import pytest

from agepipe.config import presets
from agepipe.config.runtime import Where
from agepipe.config.stages import Config
from agepipe.data.sample.source import draw
from flows.result import PipelineResult

TINY = {
    "ingest.size": 36,
    "learn.size": 32,
    "learn.network": "shufflenet_v2_x0_5",
    "learn.batch": 32,
    "learn.epochs": 1,
    "search.grid": {"lr": (0.003, 0.01)},
    "search.folds": 2,
    "final.epochs": 2,
    "evaluate.draws": 200,
}
"""Two settings on two folds, one epoch each, then two epochs."""


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 420 drawn faces."""
    folder = tmp_path_factory.mktemp("drawn")
    draw(folder, 420, seed=7)
    return folder


@pytest.fixture(scope="session")
def tiny(drawn: Path) -> Config:
    """The sample preset, cut down."""
    return presets.load("sample", {**TINY, "source.data": (str(drawn),)})


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Where:
    """The workspace of the run that several tests look at."""
    folder = tmp_path_factory.mktemp("home")
    return Where(workspace=folder / "workspace", tracking=f"sqlite:///{folder}/mlruns/mlflow.db", device="cpu")


@pytest.fixture(scope="session")
def first(tiny: Config, home: Where, prefect_server: None) -> PipelineResult:
    """The whole pipeline, run once."""
    from flows.pipeline import pipeline

    return pipeline(tiny, home)
