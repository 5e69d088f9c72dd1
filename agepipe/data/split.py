"""Split labelled rows into development and test rows, before any network is trained; no photograph is on both sides.

A split depends on the content of the photographs and a seed. For a source that has grown, an earlier split is extended:
rows that it placed stay on their side, copies of them follow, and only new groups are sampled.
"""

from pathlib import Path

import numpy as np
import polars as pl

from agepipe.config.stages import SplitSettings
from agepipe.core.errors import DataError, LeakageError
from agepipe.core.record import digest_of
from agepipe.data.groups import MEMBERS, Links, across, bound
from agepipe.data.labels import read_table, rows_digest
from agepipe.data.records import Partition, Rows
from agepipe.data.stratify import check_sides, drawn, units

COLUMNS = ("digest", "group", "look", "label")
"""Columns of labelled rows that a split uses."""


def split(rows: Rows, settings: SplitSettings, folder: Path, earlier: Path | None = None) -> Partition:
    """Divide labelled rows into development and test rows.

    The split is stratified by range, keeps copies together, and does not depend on the order or paths of the files.
    In its tables `group` also joins photographs whose perceptual hashes alone show that they are copies (see
    `agepipe.data.groups`).

    Args:
        rows: the rows to split.
        settings: share of the test rows, and the seed.
        folder: an empty folder, to which the tables are written.
        earlier: `Partition.members` of a split to extend; ignored unless `settings.extend`.

    Raises:
        DataError: a table is missing or damaged.
        ConfigError: one side would be empty.
    """
    before = read_members(earlier if settings.extend else None)
    placed, members, left_out = place(read_table(rows.table, COLUMNS), settings, before)
    parts = {side: placed.filter(pl.col("side") == side).drop("side") for side in ("development", "test")}
    check_apart(parts["development"], parts["test"])
    found = {side: _part(part, rows, folder / f"{side}.parquet") for side, part in parts.items()}
    left_out.write_parquet(folder / "left_out.parquet")
    members.write_parquet(folder / "members.parquet")
    return Partition(
        digest=digest_of("partition", found["development"].digest, found["test"].digest, members_digest(members)),
        development=found["development"], test=found["test"], whole=rows.digest,
        earlier=members_digest(before) if len(before) else None, left_out=len(left_out), settings=settings,
        members=folder / "members.parquet",
    )  # fmt: skip


def _part(table: pl.DataFrame, rows: Rows, path: Path) -> Rows:
    """Write one side of the rows to the path; returns their record."""
    table.write_parquet(path)
    changes = {"digest": rows_digest(table, rows.ranges, rows.size), "count": len(table)}
    return rows.model_copy(update={**changes, "table": path, "outside": 0, "run": None})


def read_members(path: Path | None) -> pl.DataFrame:
    """The members of an earlier split; no rows for None.

    Raises:
        DataError: the file is missing, or is not a table of the members of a split.
    """
    if path is None:
        return pl.DataFrame(schema=MEMBERS)
    found = read_table(path, tuple(MEMBERS)).select(list(MEMBERS))
    strange = found.filter(~pl.col("side").is_in(["test", "development"]) | pl.col("side").is_null())
    if len(strange):
        raise DataError(
            f"{path}: side {strange['side'][0]!r} is neither 'test' nor 'development'; make it again with --refresh."
        )
    return found


def members_digest(members: pl.DataFrame) -> str:
    """SHA-256, hex, over the side and group of each content."""
    columns = ["digest", "group", "side"]
    return digest_of("members", members.select(columns).unique().sort(columns).rows())


def place(
    frame: pl.DataFrame, settings: SplitSettings, before: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Assign a side to each row.

    Args:
        frame: labelled rows, with the columns `COLUMNS`.
        settings: share and seed.
        before: the members of an earlier split, or no rows.

    Returns:
        The rows with `side`, and with `group` as the split uses it; the members, one row for each content, including
        those of the earlier split that are no longer among the rows; and the rows that were left out: new rows that
        connect a test row with a development row, and development rows of the earlier split that are copies of a test
        row.

    Raises:
        ConfigError: one side would be empty.
    """
    links: list[tuple[str, str]] = []
    excluded: list[str] = []
    fixed = set(before["digest"])
    while True:
        every, grouped, left_out = _draw(frame, settings, before, links)
        placed = every.filter(~pl.col("digest").is_in(excluded))
        sides = {side: placed.filter(pl.col("side") == side) for side in ("development", "test")}
        found = across(sides["development"], sides["test"])
        if not found:  # a search finds one development row for each test row, and there may be more
            break
        links += [pair for pair in found if not fixed.issuperset(pair)]
        excluded += [pair[1] for pair in found if fixed.issuperset(pair)]  # an earlier split has placed both
    left_out = pl.concat([left_out, every.filter(pl.col("digest").is_in(excluded)).drop("side")])
    check_sides((placed["side"] == "test").to_numpy().astype(np.bool_), "split.test", settings.test, placed)
    members = pl.concat([placed.select(list(MEMBERS)), grouped.head(len(before)).select(list(MEMBERS))])
    return placed, members.unique("digest", keep="first", maintain_order=True).sort("digest"), left_out


def _draw(
    frame: pl.DataFrame, settings: SplitSettings, before: pl.DataFrame, links: Links
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """The rows with `side` and `group`; the table of `agepipe.data.groups.bound`; and the rows that were left out."""
    grouped = bound(frame, before, links)
    here = grouped.tail(len(frame))
    placed = frame.with_columns(here["group"], here["side"], here["bridge"])
    left_out = placed.filter(pl.col("bridge")).drop("bridge", "side")
    placed = placed.filter(~pl.col("bridge")).drop("bridge")
    fixed = placed.select("group", (pl.col("side") == "test").alias("drawn")).unique("group")
    chosen = drawn(
        units(placed, "test", settings.seed).join(fixed, on="group", how="left", maintain_order="left"), settings.test
    )
    side = pl.when(pl.col("group").is_in(list(chosen))).then(pl.lit("test")).otherwise(pl.lit("development"))
    return placed.with_columns(pl.coalesce("side", side).alias("side")), grouped, left_out


def check_apart(development: pl.DataFrame, test: pl.DataFrame) -> None:
    """Refuse two tables that share a photograph.

    Raises:
        LeakageError: names the number of test rows that are, or are copies of, development rows, and one of them.
    """
    for column, what in (("digest", "are the same files as"), ("group", "are copies of")):
        shared = test.filter(pl.col(column).is_in(development[column].unique().to_list()))
        if len(shared):
            raise LeakageError(
                f"split: {len(shared)} of {len(test)} test rows {what} development rows, "
                f"'{shared[column][0]}' among them; keep each group of copies on one side."
            )
