"""Ages become classes: the catalogue with a column `label`, and what to do where copies of a photograph disagree.

The ranges travel with the rows; see `agepipe.model.ages`, the one place that knows the order of the classes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from agepipe.config.runtime import Where
from agepipe.config.stages import LabelSettings
from agepipe.core.artifacts import file_digest, read_manifest, whole, write_manifest
from agepipe.core.errors import ConfigError, DataError
from agepipe.core.record import digest_of
from agepipe.data.copies import LABEL
from agepipe.data.records import Catalogue, Rows
from agepipe.model.ages import AgeRanges

VERSION = 2
"""Raised when the same catalogue and settings would give other rows."""
IDENTITY = ("digest", "age", "gender", "race", "group", "label")
"""Columns that make labelled rows what they are; paths, order and positions do not."""


def relabel(catalogue: Catalogue, settings: LabelSettings, where: Where) -> Rows:
    """Give each photograph the class of its age; a finished result is found again.

    Rows whose age lies outside all ranges are left out, counted, and kept in `outside.parquet` beside the table.
    Copies that disagree on the age are handled as `settings.conflicts` says, and counted in the manifest.

    Raises:
        DataError: the catalogue's table is missing or damaged.
        ConfigError: no photograph has an age in the ranges.
    """
    key = digest_of("relabel", VERSION, catalogue, _file_digest(catalogue.table), settings)
    folder = where.workspace / "labels" / f"{catalogue.name}-{key[:10]}"
    manifest = read_manifest(folder)
    if manifest is None:
        _make(folder, catalogue, settings)
        manifest = read_manifest(folder)
    return _record(folder, manifest or {}, catalogue, settings.age_ranges())


def class_column(ranges: AgeRanges, age: str = "age") -> pl.Expr:
    """A polars expression for the class of the column `age`, Int16; null outside all ranges."""
    column = pl.col(age).cast(pl.Int64)
    label = pl.lit(None, dtype=pl.Int16)
    for position, low in enumerate(ranges.lows.tolist()):
        label = pl.when(column >= low).then(pl.lit(position, dtype=pl.Int16)).otherwise(label)
    if ranges.oldest is not None:
        label = pl.when(column > ranges.oldest).then(pl.lit(None, dtype=pl.Int16)).otherwise(label)
    return label


def _file_digest(table: Path) -> str:
    # The table's own bytes are part of the key: its positions must be those of the pixel store beside it.
    try:
        return file_digest(table)
    except OSError as error:
        raise DataError(f"{table}: the catalogue cannot be read ({error}); ingest again.") from error


def _make(folder: Path, catalogue: Catalogue, settings: LabelSettings) -> None:
    frame = read_table(catalogue.table)
    ranges = settings.age_ranges()
    settled, conflicts = settle(frame, ranges, settings)
    labelled = settled.with_columns(class_column(ranges).alias("label"))
    inside = labelled.filter(pl.col("label").is_not_null())
    outside = labelled.filter(pl.col("label").is_null()).drop("label")
    if inside.is_empty():
        raise ConfigError(
            f"labels.ranges: none of the {len(frame)} photographs has an age from '{ranges.names[0]}' to "
            f"'{ranges.names[-1]}' that may be used; widen the ranges or change labels.conflicts."
        )
    with whole(folder) as draft:
        inside.write_parquet(draft / "rows.parquet")
        outside.write_parquet(draft / "outside.parquet")
        result = {"digest": rows_digest(inside, ranges, catalogue.size), "count": len(inside), "outside": len(outside)}
        inputs = {"catalogue": catalogue.digest}
        write_manifest(draft, "relabel", settings, inputs, {**result, "conflicts": conflicts})


def settle(frame: pl.DataFrame, ranges: AgeRanges, settings: LabelSettings) -> tuple[pl.DataFrame, dict[str, int]]:
    """Handle groups of copies that disagree on the age.

    Args:
        frame: a catalogue's table.
        ranges: to count the groups that disagree on the range as well.
        settings: `conflicts` says what is done.

    Returns:
        The rows, and counts: `groups` that disagree on the age, `groups_across_ranges` among them, their `rows`,
        and the rows `dropped` or `changed`. The median is of one age a row, and that of an even number of ages is
        rounded half up; rows with the same content that then have the same label become one, and count as dropped.
    """
    disagree = pl.col("age").n_unique().over("group") > 1
    conflicting = frame.filter(disagree)
    across = conflicting.filter(class_column(ranges).n_unique().over("group") > 1)
    settled, changed = frame, 0
    if settings.conflicts == "drop":
        settled = frame.filter(~disagree)
    elif settings.conflicts == "median":
        median = (pl.col("age").cast(pl.Float64).median().over("group") + 0.5).floor().cast(frame.schema["age"])
        settled = frame.with_columns(median.alias("age"))
        changed = int((settled["age"] != frame["age"]).sum())
        label = [name for name in ("digest", *LABEL) if name in frame.columns]
        settled = settled.unique(label, keep="first", maintain_order=True)
    return settled, {
        "groups": conflicting["group"].n_unique(),
        "groups_across_ranges": across["group"].n_unique(),
        "rows": len(conflicting),
        "dropped": len(frame) - len(settled),
        "changed": changed,
    }


def rows_digest(frame: pl.DataFrame, ranges: AgeRanges, size: int) -> str:
    """SHA-256, hex, of what labelled rows are: content, labels and groups in any order, the ranges, the store size."""
    present = [name for name in IDENTITY if name in frame.columns]
    return digest_of("rows", frame.select(present).sort(present, nulls_last=True).rows(), ranges, size)


def read_table(path: Path, columns: tuple[str, ...] = ("digest", "group", "age")) -> pl.DataFrame:
    """A table that must have some columns.

    Raises:
        DataError: the file is missing, is not Parquet, or lacks a column.
    """
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: the table cannot be read ({error}); make it anew.") from error
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise DataError(f"{path}: the table has no column '{missing[0]}'; make it anew.")
    return frame


def _record(folder: Path, manifest: Mapping[str, Any], catalogue: Catalogue, ranges: AgeRanges) -> Rows:
    result = manifest["result"]
    return Rows(
        digest=result["digest"],
        table=folder / "rows.parquet",
        pixels=catalogue.pixels,
        size=catalogue.size,
        count=result["count"],
        ranges=ranges,
        name=catalogue.name,
        outside=result["outside"],
    )
