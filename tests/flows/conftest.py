"""A pipeline small enough for tests, on drawn faces: real in every part, and quick."""

from pathlib import Path

import pytest
from chips import detector_file
from workspaces import runtime_in

from agepipe.config import presets
from agepipe.config.runtime import Runtime
from agepipe.config.stages import Config
from agepipe.data.sample import source
from agepipe.data.sample.source import draw
from agepipe.model.imaging import Image, decode
from agepipe.serving.detect import yunet
from agepipe.serving.detect.yunet import YuNet
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
def home(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """The workspace of the run that several tests look at."""
    return runtime_in(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def first(tiny: Config, home: Runtime, prefect_server: None) -> PipelineResult:
    """The whole pipeline, run once."""
    from flows.pipeline import pipeline

    return pipeline(tiny, home)


@pytest.fixture
def drawn_faces() -> list[Image]:
    """Two of the sample's drawn faces, of an adult and of a child."""
    chips = [chip for chip in source.plan(40, 7) if chip.quality is None]
    wanted = [next(chip for chip in chips if 25 <= chip.age <= 45), next(chip for chip in chips if chip.age <= 14)]
    return [decode(source.encoded(chip, 7)) for chip in wanted]


@pytest.fixture
def detector(shared: Path, monkeypatch: pytest.MonkeyPatch) -> YuNet:
    monkeypatch.setenv(yunet.VARIABLE, str(detector_file(shared)))
    return YuNet(detector_file(shared))
