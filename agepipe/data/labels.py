"""Add the class of each age to a catalogue, and resolve copies of a photograph that disagree on the age.

The ranges are stored with the rows; `agepipe.model.ages` alone defines the order of the classes.
"""

import json
from pathlib import Path

import polars as pl

from agepipe.config.stages import LabelSettings
from agepipe.core.errors import ConfigError, DataError
from agepipe.core.record import digest_of
from agepipe.data.copies import LABEL
from agepipe.data.records import Catalogue, Rows
from agepipe.model.ages import AgeRanges

IDENTITY = ("digest", "age", "gender", "race", "group", "label")
"""Columns that the digest of labelled rows covers; it does not cover paths, order and positions."""


def relabel(catalogue: Catalogue, settings: LabelSettings, folder: Path) -> Rows:
    """Give each photograph the class of its age.

    Rows with an age outside all ranges are left out, counted, and written to `outside.parquet` beside the table.
    Copies that disagree on the age are resolved by `settings.conflicts` and counted in `conflicts.json`.

    Args:
        catalogue: what to label.
        settings: the ranges, and what to do with copies that disagree.
        folder: an empty folder, to which the tables and counts are written.

    Raises:
        DataError: the catalogue's table is missing or damaged.
        ConfigError: no photograph has an age in the ranges.
    """
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
    inside.write_parquet(folder / "rows.parquet")
    outside.write_parquet(folder / "outside.parquet")
    (folder / "conflicts.json").write_text(json.dumps(conflicts, indent=2) + "\n", encoding="utf-8")
    return Rows(
        digest=rows_digest(inside, ranges, catalogue.size), table=folder / "rows.parquet", pixels=catalogue.pixels,
        size=catalogue.size, count=len(inside), ranges=ranges, name=catalogue.name, outside=len(outside),
    )  # fmt: skip


def class_column(ranges: AgeRanges) -> pl.Expr:
    """A polars expression for the class of the column `age`, Int16; null outside all ranges."""
    column = pl.col("age").cast(pl.Int64)
    label = pl.lit(None, dtype=pl.Int16)
    for position, low in enumerate(ranges.lows.tolist()):
        label = pl.when(column >= low).then(pl.lit(position, dtype=pl.Int16)).otherwise(label)
    if ranges.oldest is not None:
        label = pl.when(column > ranges.oldest).then(pl.lit(None, dtype=pl.Int16)).otherwise(label)
    return label


def settle(frame: pl.DataFrame, ranges: AgeRanges, settings: LabelSettings) -> tuple[pl.DataFrame, dict[str, int]]:
    """Resolve groups of copies that disagree on the age.

    Args:
        frame: a catalogue's table.
        ranges: to count the groups that disagree on the range as well.
        settings: `conflicts` selects how.

    Returns:
        The rows, and counts: `groups` that disagree on the age, `groups_across_ranges` among them, their `rows`,
        and the rows `dropped` or `changed`. The median is taken over the rows of a group; that of an even number of
        ages is rounded half up. Rows with the same content that then have the same label become one row, and the
        others count as dropped.
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
    """SHA-256, hex, over content, labels and groups of the rows in any order, the ranges, and the picture size."""
    present = [name for name in IDENTITY if name in frame.columns]
    return digest_of("rows", frame.select(present).sort(present, nulls_last=True).rows(), ranges, size)


def read_table(path: Path, columns: tuple[str, ...] = ("digest", "group", "age")) -> pl.DataFrame:
    """Read a table that must have these columns.

    Raises:
        DataError: the file is missing, is not Parquet, or lacks a column.
    """
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: the table cannot be read ({error}); run its stage again with --refresh.") from error
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise DataError(f"{path}: the table has no column '{missing[0]}'; run its stage again with --refresh.")
    return frame
