"""Slices of the rows that are evaluated separately: by gender, race, range, and quality of the picture.

Quality is measured: size is the shorter side of the photograph in px, blur the variance of its
Laplacian, brightness its mean grey. Each is split into thirds of the evaluated rows.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.data.filenames import GENDERS, RACES

THIRDS = {
    "size": ("small photographs", "middling photographs", "large photographs"),
    "blur": ("blurred", "middling sharpness", "sharp"),
    "brightness": ("dark", "middling brightness", "bright"),
}
"""The kinds of quality, and the names of their thirds, the lowest first."""


class Slice(NamedTuple):
    """Some of the rows."""

    kind: str
    """`gender`, `race`, `range`, `size`, `blur` or `brightness`."""
    name: str
    """What the rows have in common; unique within the kind."""
    rows: NDArray[np.bool_]
    """`(n,)`, true for the rows of the slice; at least one is, and at least one is not."""


def slices(table: pl.DataFrame, names: tuple[str, ...]) -> list[Slice]:
    """All slices of the rows that have rows inside and outside.

    Args:
        table: evaluated rows: `label`, and whichever exist of `gender`, `race`, `width` with `height`, `sharpness`
            and `brightness`. Rows without a value belong to no slice of that kind.
        names: the ranges in class order, in words.
    """
    found = [*_coded(table, "gender", "gender", GENDERS), *_coded(table, "race", "race", RACES)]
    found += _coded(table, "range", "label", names)
    if {"width", "height"} <= set(table.columns):
        found += _thirds("size", table.select(pl.min_horizontal("width", "height")).to_series())
    found += [one for kind, column in (("blur", "sharpness"), ("brightness", "brightness")) if column in table.columns
              for one in _thirds(kind, table[column])]  # fmt: skip
    return [one for one in found if one.rows.any() and not one.rows.all()]


def _coded(table: pl.DataFrame, kind: str, column: str, names: tuple[str, ...]) -> Iterator[Slice]:
    if column in table.columns:
        for code, name in enumerate(names):
            yield Slice(kind, name, (table[column] == code).fill_null(False).to_numpy())


def _thirds(kind: str, values: pl.Series) -> Iterator[Slice]:
    """Thirds of the rows by a value; rows with equal values are in the same third, so a third may be empty."""
    numbers = values.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    known = np.isfinite(numbers)
    if not known.any():
        return
    low, high = np.quantile(numbers[known], [1 / 3, 2 / 3])
    masks = (numbers <= low, (numbers > low) & (numbers <= high), numbers > high)
    for name, rows in zip(THIRDS[kind], masks, strict=True):
        yield Slice(kind, name, rows & known)
