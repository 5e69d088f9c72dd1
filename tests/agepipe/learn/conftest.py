"""Small labelled rows whose pictures show their age by their brightness, so that a network learns within seconds."""

import hashlib
import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from agepipe.ages import AgeRanges
from agepipe.config import LearnSettings
from agepipe.learn.job import Examples, Job
from agepipe.records import Rows, digest_of

RANGES = AgeRanges.of(("1-10", "11-20", "21-40", "over40"))
STORED = 36
COUNT = 160


@pytest.fixture
def ranges() -> AgeRanges:
    return RANGES


@pytest.fixture(scope="session")
def learn() -> LearnSettings:
    """The smallest training that learns something."""
    return LearnSettings(network="shufflenet_v2_x0_5", size=32, epochs=3, batch=16, lr=0.01, target="years")


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    tmp_path = tmp_path_factory.mktemp("rows")
    rng = np.random.default_rng(3)
    ages = rng.integers(1, 60, COUNT)
    pixels = np.clip(ages[:, None, None, None] * 4 + rng.normal(0, 12, (COUNT, STORED, STORED, 3)), 0, 255)
    store = tmp_path / "pixels.npy"
    np.save(store, pixels.astype(np.uint8))
    digests = [hashlib.sha256(str(row).encode()).hexdigest() for row in range(COUNT)]
    table = pl.DataFrame(
        {
            "index": np.arange(COUNT, dtype=np.uint32), "path": [f"{row}.jpg" for row in range(COUNT)],
            "age": ages.astype(np.uint8), "gender": pl.Series(ages % 2, dtype=pl.Int8),
            "race": pl.Series([None if row % 9 == 0 else row % 5 for row in range(COUNT)], dtype=pl.Int8),
            "digest": digests, "look": [bytes.fromhex(one) for one in digests],
            "group": digests, "label": RANGES.classes(ages).astype(np.int16),
        }
    ).sample(fraction=1.0, shuffle=True, seed=1)  # fmt: skip
    table.write_parquet(tmp_path / "rows.parquet")
    return Rows(
        digest=digest_of("test", digests), table=tmp_path / "rows.parquet", pixels=store, size=STORED, count=COUNT,
        ranges=RANGES, name="drawn",
    )  # fmt: skip


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
    with tarfile.open(sample_archive) as archive:
        files = [archive.extractfile(member) for member in archive if member.name.endswith(".jpg")]
        contents = [io.BytesIO(file.read()).getbuffer() for file in files if file]
    images = [cv2.imdecode(np.frombuffer(one, dtype=np.uint8), cv2.IMREAD_COLOR_RGB) for one in contents]
    return np.stack([cv2.resize(image, (72, 72), interpolation=cv2.INTER_AREA) for image in images])
