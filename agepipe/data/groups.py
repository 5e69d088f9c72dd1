"""Which rows are bound to lie on one side of a split: copies of a photograph, and what an earlier split has placed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.data import duplicates
from agepipe.data.near_duplicates import merge
from agepipe.model.phash import COPY_BITS, same

MEMBERS: dict[str, Any] = {"digest": pl.String, "group": pl.String, "look": pl.Binary, "side": pl.String}
"""Columns of the members of a split."""
MARGIN = 0.001
"""How much less a split asks for than a lineage does, so that no test row of its own ever counts as seen."""
Links = Sequence[tuple[str, str]]
"""Content digests of pairs of rows that show one photograph."""


def bound(frame: pl.DataFrame, before: pl.DataFrame, links: Links = ()) -> pl.DataFrame:
    """Bind rows that show one photograph, and give them the side that an earlier split has placed them on.

    Rows are bound by the file's digest, by the catalogue's group, and by looks within `COPY_BITS`, which
    finds some photographs that were cropped twice and that the correlation of thumbnails misses, and by `links`.

    Args:
        frame: `digest`, `group`, `look` of the rows to place.
        before: the members of an earlier split, or no rows.
        links: further pairs to bind.

    Returns:
        A table for the rows of `before`, then of `frame`, in their order: `digest`, `look`; `group`: the smallest
        digest of all that are bound together; `side`: `test`, `development`, or null for what is still to be drawn;
        `tie`: true for a new row that binds a test row to a development row. Rows that were placed before on either
        side of such a tie keep the group and the side that they had.
    """
    known = before.select(list(MEMBERS))
    new = frame.select("digest", "group", "look", pl.lit(None, dtype=pl.String).alias("side"))
    stack = pl.concat([known, new])
    placed = stack.select("digest").join(
        known.unique("digest", keep="first", maintain_order=True).select("digest", "group", "side"),
        on="digest", how="left", maintain_order="left",
    )  # fmt: skip
    sides = pl.col("side").drop_nulls().unique()
    torn = sides.len().over("component") > 1
    return (
        stack.select("digest", "look")
        .with_columns(pl.Series("component", components(stack, links)), placed["side"], placed["group"].alias("had"))
        .with_columns(
            pl.when(torn & pl.col("had").is_not_null())
            .then(pl.col("had"))
            .otherwise(pl.col("digest").min().over("component"))
            .alias("group"),
            pl.when(torn).then(pl.col("side")).otherwise(pl.col("side").max().over("component")).alias("side"),
            (torn & pl.col("side").is_null()).alias("tie"),
        )
        .select("digest", "look", "group", "side", "tie")
    )


def components(stack: pl.DataFrame, links: Links = ()) -> NDArray[np.int64]:
    """Numbers of the components of rows that share a digest, a group or a look, or are linked; int64 `(rows,)`."""
    labels = np.arange(len(stack), dtype=np.int64)
    _link(labels, _codes(stack["digest"]))
    _link(labels, _codes(stack["group"]))
    _link(labels, duplicates.tied(stack["look"].to_list()))
    place = {digest: row for row, digest in enumerate(stack["digest"])}
    left, right = (np.array([place[pair[end]] for pair in links], dtype=np.int64) for end in (0, 1))
    merge(labels, left, right)
    return labels


def across(development: pl.DataFrame, test: pl.DataFrame) -> list[tuple[str, str]]:
    """Pairs of a test row and a development row that a model's lineage would take for one photograph, by digests.

    Args:
        development: `digest` and `look` of each row.
        test: likewise.
    """
    found = same(test["look"].to_list(), development["look"].to_list(), COPY_BITS, MARGIN)
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
