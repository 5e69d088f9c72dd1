"""Small labelled rows, the smallest training, and real chips."""

from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest
from chips import real_chips
from labelled import RANGES, labelled_rows
from numpy.typing import NDArray

from agepipe.config.runtime import Runtime
from agepipe.config.stages import LearnSettings
from agepipe.data.records import Rows
from agepipe.model.ages import AgeRanges
from agepipe.training.job import Examples, Job


@pytest.fixture
def ranges() -> AgeRanges:
    return RANGES


@pytest.fixture(scope="session")
def learn() -> LearnSettings:
    """The smallest training that learns something."""
    return LearnSettings(network="shufflenet_v2_x0_5", size=32, epochs=3, batch=16, lr=0.01, target="years")


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    return labelled_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """A workspace that the tests of a module share, so that they train once."""
    return Runtime(workspace=tmp_path_factory.mktemp("workspace"), device="cpu", workers=2, threads=1)


@pytest.fixture
def job(rows: Rows, learn: LearnSettings, tmp_path: Path) -> Job:
    table = pl.read_parquet(rows.table).sort("index")
    return Job(
        folder=tmp_path / "training", pixels=rows.pixels, train=Examples.of(table[:120]),
        validation=Examples.of(table[120:]), ranges=rows.ranges, learn=learn, metric="macro_recall", device="cpu",
    )  # fmt: skip


@pytest.fixture(scope="session")
def faces(sample_archive: Path) -> NDArray[np.uint8]:
    """The 700 real chips of the sample archive, uint8 (700, 72, 72, 3) RGB."""
    images = real_chips(sample_archive)[0]
    return np.stack([cv2.resize(image, (72, 72), interpolation=cv2.INTER_AREA) for image in images])
