"""Small labelled rows whose pictures show their age by their brightness, so that a network learns within seconds."""

import hashlib
from pathlib import Path

import numpy as np
import polars as pl

from agepipe.core.record import digest_of
from agepipe.data.records import Rows
from agepipe.model.ages import AgeRanges

RANGES = AgeRanges.of(("1-10", "11-20", "21-40", "over40"))
STORED = 36
COUNT = 160


def labelled_rows(folder: Path) -> Rows:
    """Rows whose table and pixel store lie in the folder."""
    rng = np.random.default_rng(3)
    ages = rng.integers(1, 60, COUNT)
    pixels = np.clip(ages[:, None, None, None] * 4 + rng.normal(0, 12, (COUNT, STORED, STORED, 3)), 0, 255)
    store = folder / "pixels.npy"
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
    table.write_parquet(folder / "rows.parquet")
    return Rows(
        digest=digest_of("test", digests), table=folder / "rows.parquet", pixels=store, size=STORED, count=COUNT,
        ranges=RANGES, name="drawn",
    )  # fmt: skip
