"""A model's predictions on rows, computed in parts and cached for later evaluations of the same rows.

Parts are written atomically, so an interrupted evaluation loses only the parts in progress. Parts are predicted
concurrently, each on one thread, so the predictions do not depend on the number of cores.
"""

import hashlib
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.config.runtime import Runtime
from agepipe.core.artifacts import remove, replacing
from agepipe.core.errors import DataError, ModelError
from agepipe.core.progress import Progress, silent
from agepipe.core.record import digest_of
from agepipe.data.pixel_store import open_pixels
from agepipe.data.records import Rows
from agepipe.model.bundle import Card
from agepipe.model.imaging import fit
from agepipe.model.predictor import BATCH, Prediction, Predictor
from agepipe.model.records import Model

PART = 4 * BATCH
"""Rows per part."""
NEEDED = ("index", "path", "age", "digest", "look", "group")
CONTRADICTION = 15.0
"""Largest mean difference in years between a network's age and the mean age of its class probabilities."""


@dataclass(frozen=True)
class Answers:
    """A model's prediction for each row of a table, in the table's order; ages are not clipped to the ranges."""

    prediction: Prediction
    seconds: float
    """Time for predicting, summed over all parts, including cached ones."""


def read_rows(rows: Rows) -> pl.DataFrame:
    """The rows' table.

    Raises:
        DataError: it cannot be read, has no rows, or lacks a column of `NEEDED`.
    """
    try:
        table = pl.read_parquet(rows.table)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{rows.table}: not a readable table of rows; make the split again.") from error
    missing = [name for name in NEEDED if name not in table.columns]
    if missing:
        raise DataError(f"{rows.table}: the columns {', '.join(missing)} are missing; make the split again.")
    if table.is_empty():
        raise DataError(f"{rows.table}: there are no rows to evaluate a model on; give at least one.")
    return table


def answer(model: Model, rows: Rows, table: pl.DataFrame, runtime: Runtime, progress: Progress = silent) -> Answers:
    """Predict all rows of a table, or find them predicted.

    Args:
        model: the bundle.
        rows: where the pixel store lies, and its size; pictures of another size are brought to the model's.
        table: the rows to predict, `digest` and `index` among its columns.
        runtime: workspace, and how many parts at a time.
        progress: told after each part.

    Raises:
        DataError: the pixel store does not fit the table.
        ModelError: the bundle cannot be used, or its classes contradict its years.
    """
    predictor = Predictor.load(model.folder)
    content = hashlib.sha256("\n".join(table["digest"]).encode()).hexdigest()
    folder = runtime.workspace / "predictions" / digest_of(model.digest, rows.size, content)[:16]
    if runtime.refreshes("evaluate"):
        remove(folder, runtime.workspace)
    folder.mkdir(parents=True, exist_ok=True)
    parts = list(_parts(predictor, pixels_of(rows, table), table["index"].to_numpy(), folder, runtime, progress))
    found = Prediction(
        np.concatenate([part["probabilities"] for part in parts]), np.concatenate([part["years"] for part in parts])
    )
    check_order(predictor.card, found)
    return Answers(found, float(sum(part["seconds"] for part in parts)))


def check_order(card: Card, found: Prediction) -> None:
    """Refuse a network whose classes are not in the order of its ranges: its ages then contradict its classes.

    Raises:
        ModelError: names the mean difference in years.
    """
    apart = float(np.abs(found.probabilities @ card.ranges.mid_ages - found.years).mean())
    if apart > CONTRADICTION:
        raise ModelError(
            f"{card.network}: its classes and its years are {apart:.0f} years apart on average (allowed are "
            f"{CONTRADICTION:.0f}): either its classes are not in the order {', '.join(card.ranges.names[:3])}, ... "
            "or it has hardly been trained; export it again with the ranges of its training, or train it longer."
        )


def _parts(
    predictor: Predictor,
    pixels: NDArray[np.uint8],
    index: NDArray[np.integer],
    folder: Path,
    runtime: Runtime,
    progress: Progress,
) -> Iterator[dict[str, NDArray[np.float32]]]:
    starts = range(0, len(index), PART)

    def work(start: int) -> dict[str, NDArray[np.float32]]:
        path = folder / f"part-{start // PART:05d}.npz"
        chosen = index[start : start + PART]
        return _kept(path, len(chosen)) or _keep(path, *_timed(predictor, pixels, chosen))

    with ThreadPoolExecutor(runtime.worker_count) as pool:
        for start, part in zip(starts, pool.map(work, starts), strict=True):
            progress(min(start + PART, len(index)), len(index), "rows predicted")
            yield part


def _timed(predictor: Predictor, pixels: NDArray[np.uint8], index: NDArray[np.integer]) -> tuple[Prediction, float]:
    # raw, because ages that are clipped to the predicted ranges cannot contradict them
    size = predictor.card.size
    begin = time.perf_counter()
    batches = (_sized(pixels[index[start : start + BATCH]], size) for start in range(0, len(index), BATCH))
    return predictor.predict_batches(batches, len(index), raw=True), time.perf_counter() - begin


def _sized(batch: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    if batch.shape[1] == size:
        return batch
    return np.stack([fit(picture, size) for picture in batch])


def _kept(path: Path, rows: int) -> dict[str, NDArray[np.float32]] | None:
    """A finished part, or None if there is none that can be read."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            part = {name: archive[name] for name in ("probabilities", "years", "seconds")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return part if len(part["years"]) == rows else None


def _keep(path: Path, prediction: Prediction, seconds: float) -> dict[str, NDArray[np.float32]]:
    part = {**prediction._asdict(), "seconds": np.float32(seconds)}
    with replacing(path) as draft, draft.open("wb") as file:
        np.savez(file, **part)
    return part


def pixels_of(rows: Rows, table: pl.DataFrame) -> NDArray[np.uint8]:
    """The pixel store that the table's `index` points into, mapped from disk, uint8 `(more than any index, s, s, 3)`.

    Raises:
        DataError: it cannot be read, or does not fit the table.
    """
    pixels = open_pixels(rows.pixels, rows.size)
    last = int(table["index"].cast(pl.Int64).max() or 0)  # type: ignore[arg-type]
    if last >= len(pixels):
        raise DataError(f"{rows.pixels}: holds {len(pixels)} pictures, but the rows need number {last}; ingest again.")
    return pixels
