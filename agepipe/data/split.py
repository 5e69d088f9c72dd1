"""The test rows are locked away before the first network exists; no photograph lies on both sides.

A split is drawn from the content of the photographs and a seed. A source that has grown extends an earlier split: what
it placed stays on its side, copies of it follow, and only new groups are drawn.
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
"""Columns of labelled rows that a split looks at."""


def split(rows: Rows, settings: SplitSettings, folder: Path, earlier: Path | None = None) -> Partition:
    """Divide labelled rows into development and test rows.

    Stratified by range, copies kept together, the same whatever the order or the paths of the files. In the tables
    that come out, `group` also binds photographs that only their looks show to be one (see `agepipe.data.groups`).

    Args:
        rows: what to split.
        settings: share of the test rows, and the seed.
        folder: an empty folder, which gets the tables.
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
    """One side of the rows, written to the path."""
    table.write_parquet(path)
    changes = {"digest": rows_digest(table, rows.ranges, rows.size), "count": len(table)}
    return rows.model_copy(update={**changes, "table": path, "outside": 0, "run": None})


def read_members(path: Path | None) -> pl.DataFrame:
    """The members of an earlier split; no rows for None.

    Raises:
        DataError: the file is missing, or is not the members of a split.
    """
    if path is None:
        return pl.DataFrame(schema=MEMBERS)
    found = read_table(path, tuple(MEMBERS)).select(list(MEMBERS))
    strange = found.filter(~pl.col("side").is_in(["test", "development"]) | pl.col("side").is_null())
    if len(strange):
        raise DataError(f"{path}: side {strange['side'][0]!r} is neither 'test' nor 'development'; split anew.")
    return found


def members_digest(members: pl.DataFrame) -> str:
    """SHA-256, hex, of which content lies on which side."""
    columns = ["digest", "group", "side"]
    return digest_of("members", members.select(columns).unique().sort(columns).rows())


def place(
    frame: pl.DataFrame, settings: SplitSettings, before: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Give each row a side.

    Args:
        frame: labelled rows, with the columns `COLUMNS`.
        settings: share and seed.
        before: the members of an earlier split, or no rows.

    Returns:
        The rows with `side` and with `group` as it holds for the split; the members, one row for each content, those
        of the earlier split that are no longer among the rows included; and the rows that were left out: new ones that
        tie a test row to a development row, and development rows of the earlier split that show a test row's
        photograph.

    Raises:
        ConfigError: one side would be empty.
    """
    links: list[tuple[str, str]] = []
    torn: list[str] = []
    fixed = set(before["digest"])
    while True:
        every, ties, left_out = _draw(frame, settings, before, links)
        placed = every.filter(~pl.col("digest").is_in(torn))
        sides = {side: placed.filter(pl.col("side") == side) for side in ("development", "test")}
        found = across(sides["development"], sides["test"])
        if not found:  # each search names one development row for a test row, and there may be more
            break
        links += [pair for pair in found if not fixed.issuperset(pair)]
        torn += [pair[1] for pair in found if fixed.issuperset(pair)]  # an earlier split has placed both
    left_out = pl.concat([left_out, every.filter(pl.col("digest").is_in(torn)).drop("side")])
    check_sides((placed["side"] == "test").to_numpy().astype(np.bool_), "split.test", settings.test, placed)
    members = pl.concat([placed.select(list(MEMBERS)), ties.head(len(before)).select(list(MEMBERS))])
    return placed, members.unique("digest", keep="first", maintain_order=True).sort("digest"), left_out


def _draw(
    frame: pl.DataFrame, settings: SplitSettings, before: pl.DataFrame, links: Links
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """The rows with `side` and `group`, what binds them and the earlier members, and the rows that were left out."""
    ties = bound(frame, before, links)
    here = ties.tail(len(frame))
    placed = frame.with_columns(here["group"], here["side"], here["tie"])
    left_out = placed.filter(pl.col("tie")).drop("tie", "side")
    placed = placed.filter(~pl.col("tie")).drop("tie")
    fixed = placed.select("group", (pl.col("side") == "test").alias("drawn")).unique("group")
    chosen = drawn(
        units(placed, "test", settings.seed).join(fixed, on="group", how="left", maintain_order="left"), settings.test
    )
    side = pl.when(pl.col("group").is_in(list(chosen))).then(pl.lit("test")).otherwise(pl.lit("development"))
    return placed.with_columns(pl.coalesce("side", side).alias("side")), ties, left_out


def check_apart(development: pl.DataFrame, test: pl.DataFrame) -> None:
    """Refuse two tables that share a photograph.

    Raises:
        LeakageError: says how many test rows have their file, or a copy of it, among the development rows, and which.
    """
    for column, what in (("digest", "are the same files as"), ("group", "are copies of")):
        shared = test.filter(pl.col(column).is_in(development[column].unique().to_list()))
        if len(shared):
            raise LeakageError(
                f"split: {len(shared)} of {len(test)} test rows {what} development rows, "
                f"'{shared[column][0]}' among them; keep each group of copies on one side."
            )
