"""Groups that a split keeps on one side: copies of a photograph, and rows that an earlier split has placed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.data import duplicates
from agepipe.data.near_duplicates import merge
from agepipe.model.phash import COPY_BITS, copies_among

MEMBERS: dict[str, Any] = {"digest": pl.String, "group": pl.String, "look": pl.Binary, "side": pl.String}
"""Columns of the members of a split."""
MARGIN = 0.001
"""By how much the correlation limits of a split are below those of a lineage, so that a split's own test rows never
count as seen."""
Links = Sequence[tuple[str, str]]
"""Pairs of rows that show one photograph, by their content digests."""


def bound(frame: pl.DataFrame, before: pl.DataFrame, links: Links) -> pl.DataFrame:
    """Group rows that show one photograph, and assign the side of an earlier split to them.

    Rows are grouped by content digest, by the catalogue's group, by perceptual hashes within `COPY_BITS` (which find
    some photographs that were cropped twice and that the correlation of thumbnails misses), and by `links`.

    Args:
        frame: `digest`, `group`, `look` (perceptual hash) of the rows to place.
        before: the members of an earlier split, or no rows.
        links: further pairs to group.

    Returns:
        A table of the rows of `before`, then of `frame`, in order: `digest`; `look`; `group`, the smallest digest of
        the group; `side`, `test`, `development`, or null for a row that is not placed yet; `bridge`, true for a new
        row that connects a test row with a development row. The rows that such a row connects keep the group and side
        of the earlier split.
    """
    known = before.select(list(MEMBERS))
    new = frame.select("digest", "group", "look", pl.lit(None, dtype=pl.String).alias("side"))
    stack = pl.concat([known, new])
    placed = stack.select("digest").join(
        known.unique("digest", keep="first", maintain_order=True).select("digest", "group", "side"),
        on="digest", how="left", maintain_order="left",
    )  # fmt: skip
    sides = pl.col("side").drop_nulls().unique()
    bridged = sides.len().over("component") > 1
    return (
        stack.select("digest", "look")
        .with_columns(
            pl.Series("component", components(stack, links)), placed["side"], placed["group"].alias("earlier")
        )
        .with_columns(
            pl.when(bridged & pl.col("earlier").is_not_null())
            .then(pl.col("earlier"))
            .otherwise(pl.col("digest").min().over("component"))
            .alias("group"),
            pl.when(bridged).then(pl.col("side")).otherwise(pl.col("side").max().over("component")).alias("side"),
            (bridged & pl.col("side").is_null()).alias("bridge"),
        )
        .select("digest", "look", "group", "side", "bridge")
    )


def components(stack: pl.DataFrame, links: Links) -> NDArray[np.int64]:
    """The component of each row, int64 `(rows,)`: rows are joined by digest, group, perceptual hash and `links`."""
    labels = np.arange(len(stack), dtype=np.int64)
    _link(labels, _codes(stack["digest"]))
    _link(labels, _codes(stack["group"]))
    _link(labels, duplicates.linked(stack["look"].to_list()))
    place = {digest: row for row, digest in enumerate(stack["digest"])}
    left, right = (np.array([place[pair[end]] for pair in links], dtype=np.int64) for end in (0, 1))
    merge(labels, left, right)
    return labels


def across(development: pl.DataFrame, test: pl.DataFrame) -> list[tuple[str, str]]:
    """Pairs of a test row and a development row that a lineage would count as one photograph, by digests.

    Args:
        development: `digest` and `look` of each row.
        test: `digest` and `look` of each row.
    """
    found = copies_among(test["look"].to_list(), development["look"].to_list(), COPY_BITS, MARGIN)
    pairs = zip(test["digest"], found.tolist(), strict=True)
    return [(digest, development["digest"][place]) for digest, place in pairs if place >= 0]


def _codes(column: pl.Series) -> NDArray[np.int64]:
    return column.rank("dense").to_numpy().astype(np.int64) - 1


def _link(labels: NDArray[np.int64], codes: NDArray[np.int64]) -> None:
    """Merge, in place, the labels of rows with the same code."""
    rows = np.arange(len(codes), dtype=np.int64)
    first = np.full(int(codes.max(initial=-1)) + 1, len(codes), dtype=np.int64)
    np.minimum.at(first, codes, rows)
    merge(labels, rows, first[codes])
