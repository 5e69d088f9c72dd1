"""Coverage and size of a model's prediction sets, over all rows and in each slice."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.evaluation.bootstrap import column_sums, interval, share_limit
from agepipe.evaluation.metrics import Predictions
from agepipe.evaluation.slices import Slice
from agepipe.model.bundle import Card
from agepipe.model.decoding import sets

SLICE_COVERAGE: dict[str, type[pl.DataType]] = {
    "kind": pl.String, "slice": pl.String,
    "coverage": pl.Float64, "coverage_low": pl.Float64, "coverage_high": pl.Float64,
}  # fmt: skip
"""Columns of `slice_coverage`."""


class Sets(NamedTuple):
    """The sets of `n` rows at one level; each is a run of neighbouring ranges."""

    level: int
    """Nominal coverage in percent: the share of rows whose set should contain the true range."""
    low: NDArray[np.int64]
    """First class, `(n,)`."""
    high: NDArray[np.int64]
    """Last class, `(n,)`."""

    @property
    def size(self) -> NDArray[np.int64]:
        """Ranges in each set, `(n,)`."""
        return self.high - self.low + 1

    def measures(self, labels: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """Values to average, each `(n,)`: whether the set contains the true class, its size, whether that is 1."""
        found = {
            "coverage": (self.low <= labels) & (labels <= self.high), "set_size": self.size, "single": self.size == 1,
        }  # fmt: skip
        return {name: np.asarray(values, dtype=np.float64) for name, values in found.items()}


def sets_of(card: Card, predictions: Predictions, level: int) -> Sets | None:
    """The sets of evaluated rows; None if the model has no threshold for the level."""
    if level not in card.thresholds:
        return None
    return Sets(level, *sets(predictions.probabilities, card.thresholds[level], predictions.decoding))


def no_sets(card: Card, level: int) -> str:
    """Why there are no sets, in one sentence."""
    if not card.thresholds:
        return (
            "The model has no thresholds for prediction sets, so it answers one range however uncertain it is. A model "
            "that is trained with validation data (final.validation) has them."
        )
    have = ", ".join(map(str, sorted(card.thresholds)))
    return f"The model has no threshold for prediction sets at {level} %. It has thresholds for these levels: {have} %."


def coverage_sums(groups: NDArray[Any], found: Sequence[Slice], covered: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each group, its rows and covered rows in each slice, float64 `(groups, 2 slices)`.

    Args:
        groups: number of the group of duplicates of each row, `(n,)`.
        found: the slices.
        covered: 1 where the set of a row contains its true class, `(n,)`.
    """
    inside = [one.rows.astype(np.float64) for one in found]
    columns = [column for rows in inside for column in (rows, rows * covered)]
    return column_sums(groups, np.stack(columns, axis=1) if columns else np.empty((len(covered), 0)))


def slice_coverage(
    groups: NDArray[Any], found: Sequence[Slice], sums: NDArray[np.float64], drawn: NDArray[np.float64],
    confidence: float,
) -> pl.DataFrame:  # fmt: skip
    """The share of each slice's rows whose set contains the true class, with its interval.

    Args:
        groups: number of the group of duplicates of each row, `(n,)`.
        found: the slices.
        sums: of each group, as `coverage_sums` gives them.
        drawn: the same of each bootstrap draw, `(draws, 2 slices)`.
        confidence: coverage of the intervals.

    Returns:
        `kind`, `slice`, `coverage`, `coverage_low` and `coverage_high`; the last two are null where no draw has a row.
    """
    rows = []
    for at, one in enumerate(found):
        count, covered = sums[:, 2 * at : 2 * at + 2].sum(axis=0)
        counts, hits = drawn[:, 2 * at : 2 * at + 2].T
        shares = np.divide(hits, counts, out=np.full(len(hits), np.nan), where=counts > 0.5)
        low, high = interval(shares, confidence)
        end = share_limit(len(np.unique(groups[one.rows])), confidence)
        if covered in (0, count):  # all draws are equal
            low, high = (0.0, 1 - end) if covered == 0 else (end, 1.0)
        rows.append({"kind": one.kind, "slice": one.name, "coverage": covered / count, **_bounds(low, high)})
    return pl.DataFrame(rows, schema=SLICE_COVERAGE)


def _bounds(low: float, high: float) -> dict[str, float | None]:
    return {"coverage_low": None if np.isnan(low) else low, "coverage_high": None if np.isnan(high) else high}
