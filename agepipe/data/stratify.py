"""Stratified sampling of groups of photographs for the test side, for validation and for folds; groups stay whole.

The sample depends on the names of the groups, their sizes and classes, and a seed, but not on the order of rows. Groups
are ordered by a keyed hash of their names. A group counts for its most frequent class.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.core.errors import ConfigError
from agepipe.model.ages import AgeRanges


def units(frame: pl.DataFrame, purpose: str, seed: int) -> pl.DataFrame:
    """One row a group: `group`, `label` (its most frequent class), `rows`; sorted by class, then in sampling order.

    Args:
        frame: `group` and `label` of each row.
        purpose: makes samples for different purposes independent if they share a seed.
        seed: determines the order.
    """
    counted = (
        frame.group_by("group", "label")
        .agg(pl.len().alias("rows"))
        .sort("group", "rows", "label", descending=[False, True, False])
        .group_by("group", maintain_order=True)
        .agg(pl.col("label").first(), pl.col("rows").sum())
    )
    key = f"{purpose}|{seed}|".encode()
    order = [blake2b(key + group.encode(), digest_size=16).digest() for group in counted["group"]]
    return counted.with_columns(pl.Series("order", order, dtype=pl.Binary)).sort("label", "order").drop("order")


def drawn(found: pl.DataFrame, share: float) -> set[str]:
    """Sample groups so that their share of the rows of each class is as close to `share` as whole groups allow.

    A class with two or more groups has at least one on each side; a class with one group is not sampled.

    Args:
        found: from `units`, with a column `drawn` (true, false, or null for a group that is undecided).
        share: target share of the rows, in (0, 1).

    Returns:
        Names of the undecided groups that were sampled.
    """
    chosen: set[str] = set()
    for part in found.partition_by("label", maintain_order=True):
        if len(part) > 1:
            chosen.update(_drawn_of_class(part, share))
    return chosen


def _drawn_of_class(part: pl.DataFrame, share: float) -> list[str]:
    fixed = {side: int(part.filter(pl.col("drawn") == side)["rows"].sum()) for side in (True, False)}
    free = part.filter(pl.col("drawn").is_null()).select("group", "rows").rows()
    target, taken = share * int(part["rows"].sum()), fixed[True]
    chosen: list[str] = []
    for group, rows in free:
        if taken + rows / 2 < target:  # closer to the target with this group than without it
            chosen.append(group)
            taken += rows
    if free and not chosen and not fixed[True]:
        chosen = [min(free, key=lambda unit: unit[1])[0]]
    if len(free) == len(chosen) and free and not fixed[False]:
        chosen.pop()
    return chosen


def folds(frame: pl.DataFrame, count: int, seed: int, ranges: AgeRanges | None = None) -> NDArray[np.int64]:
    """Stratified grouped folds, which do not depend on the order of the rows.

    In each class the folds differ by no more rows than its largest group has. A class with a single group is in one
    fold.

    Args:
        frame: `group` and `label` of each row.
        count: number of folds.
        seed: random seed.
        ranges: names the ranges in errors.

    Returns:
        The fold of each row, int64 `(rows,)`.

    Raises:
        ConfigError: a range has fewer groups than folds (and more than one), or a fold would be empty.
    """
    found = units(frame, "folds", seed)
    _check_folds(found, count, ranges)
    totals = [0] * count
    placed: dict[str, int] = {}
    for part in found.partition_by("label", maintain_order=True):
        inside = [0] * count
        for group, rows in part.sort("rows", descending=True, maintain_order=True).select("group", "rows").rows():
            fold = min(range(count), key=lambda at: (inside[at], totals[at]))
            placed[group] = fold
            inside[fold] += rows
            totals[fold] += rows
    return np.array([placed[group] for group in frame["group"]], dtype=np.int64)


def _check_folds(found: pl.DataFrame, count: int, ranges: AgeRanges | None) -> None:
    groups = found.group_by("label").agg(pl.len().alias("groups")).sort("groups", "label")
    short = groups.filter((pl.col("groups") < count) & (pl.col("groups") > 1))
    if len(short):
        label, most = short.row(0)
        raise ConfigError(
            f"search.folds is {count}, but range '{_name(label, ranges)}' has {most} groups of photographs; "
            f"use at most {most}."
        )
    if len(found) < count:
        raise ConfigError(
            f"search.folds is {count}, but there are {len(found)} groups of photographs; use fewer folds or more "
            "photographs."
        )


def _name(label: int, ranges: AgeRanges | None) -> str:
    return str(label) if ranges is None else ranges.names[label]


def holdout(frame: pl.DataFrame, share: float, seed: int) -> NDArray[np.bool_]:
    """The validation part of the development rows, stratified, groups whole; bool `(rows,)`, true for validation.

    Args:
        frame: `group` and `label` of each row.
        share: target share of the rows.
        seed: random seed.

    Raises:
        ConfigError: one of the two parts would be empty.
    """
    undecided = pl.lit(None, dtype=pl.Boolean).alias("drawn")
    chosen = drawn(units(frame, "validation", seed).with_columns(undecided), share)
    mask = frame["group"].is_in(list(chosen)).to_numpy().astype(np.bool_)
    check_sides(mask, "final.validation", share, frame)
    return mask


def check_sides(mask: Sequence[bool] | NDArray[np.bool_], setting: str, share: float, frame: pl.DataFrame) -> None:
    """Refuse a split of the rows that leaves one side empty.

    Raises:
        ConfigError: names the setting.
    """
    if not np.any(mask) or np.all(mask):
        groups = frame["group"].n_unique()
        raise ConfigError(
            f"{setting} is {share}, but {len(frame)} rows in {groups} groups of photographs leave one side empty, "
            "because no range has two groups; add photographs or widen the ranges."
        )
