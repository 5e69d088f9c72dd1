"""The gap between each slice and the rest of the rows, with intervals and corrected p-values.

The gap between a slice and the rest is paired: in each draw both are computed from the same groups. Its p-value comes
from the bootstrap's standard error (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 12), because
a share of the draws could not be smaller than one draw. The p-values of all slices that are large enough, in both
figures, are corrected together (Benjamini and Hochberg, "Controlling the false discovery rate", 1995): of the gaps that
are then called significant, at most the share `1 - confidence` is expected to be chance.
"""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.config.stages import EvaluateSettings
from agepipe.evaluation.bootstrap import column_sums, interval
from agepipe.evaluation.metrics import Predictions
from agepipe.evaluation.slices import Slice

SLICE_FIGURES = ("accuracy", "mae")
"""The figures of a slice: the share of right ranges, and the mean age error in years."""
_SUMS = 1 + len(SLICE_FIGURES)
_COLUMNS = ("low", "high", "gap", "gap_low", "gap_high", "p")
SCHEMA: dict[str, type[pl.DataType]] = {
    "kind": pl.String, "slice": pl.String, "rows": pl.Int64, "photographs": pl.Int64, "enough": pl.Boolean,
    **{f"{name}{part}": pl.Float64 for name in SLICE_FIGURES for part in ("", *(f"_{column}" for column in _COLUMNS))},
}  # fmt: skip
"""One row per slice: `gap` is slice minus rest, `p` is corrected; both are null if `enough` is false."""

NOISE = 1e-9
"""Gaps and standard deviations up to this are rounding."""

Floats = NDArray[np.float64]


def slice_sums(groups: NDArray[Any], found: list[Slice], predictions: Predictions) -> Floats:
    """For each group, its rows, right rows and age error, in total and in each slice.

    Returns:
        float64 `(groups, 3 (slices + 1))`.
    """
    values = np.stack([np.ones(len(predictions.labels)), predictions.right, predictions.errors], axis=1)
    return column_sums(groups, np.hstack([values, *(one.rows[:, None] * values for one in found)]))


def slice_table(
    groups: NDArray[Any], found: list[Slice], sums: Floats, drawn: Floats, settings: EvaluateSettings
) -> pl.DataFrame:
    """Each slice compared with the rest; large enough slices first, and among them the least accurate first.

    Args:
        groups: name of the group of duplicates of each row, `(n,)`.
        found: the slices.
        sums: of each group, as `slice_sums` gives them.
        drawn: the same of each draw, `(draws, 3 (slices + 1))`.
        settings: coverage of the intervals, and the minimum size of a slice.

    Returns:
        The columns of `SCHEMA`.
    """
    whole = sums.sum(axis=0)[None]
    sizes = [(len(np.unique(groups[one.rows])), len(np.unique(groups[~one.rows]))) for one in found]
    rows = [
        {"kind": one.kind, "slice": one.name, "rows": int(one.rows.sum())}
        | {"photographs": sizes[at][0], "enough": min(sizes[at]) >= settings.min_slice}
        | _figures(_part(whole, at + 1), _part(drawn, at + 1), sizes[at], settings.confidence)
        for at, one in enumerate(found)
    ]
    return _corrected(pl.DataFrame(rows, schema=SCHEMA)).sort("enough", "accuracy_gap", descending=[True, False])


def _part(totals: Floats, at: int) -> tuple[Floats, Floats]:
    """The sums of a slice and of the rest, each `(draws, 3)`."""
    inside = totals[:, at * _SUMS : (at + 1) * _SUMS]
    return inside, totals[:, :_SUMS] - inside


def _figures(
    whole: tuple[Floats, Floats], drawn: tuple[Floats, Floats], sizes: tuple[int, int], confidence: float
) -> dict[str, float]:
    found: dict[str, float] = {}
    for column, name in enumerate(SLICE_FIGURES, start=1):
        (value, rest), (values, rests) = (_means(pair, column) for pair in (whole, drawn))
        gap, gaps = float(value[0] - rest[0]), values - rests
        bounds = (*interval(values, confidence), gap, *interval(gaps, confidence), _p_value(gap, gaps, sizes))
        found |= {name: float(value[0])} | {f"{name}_{key}": v for key, v in zip(_COLUMNS, bounds, strict=True)}
    return found


def _means(pair: tuple[Floats, Floats], column: int) -> tuple[Floats, Floats]:
    """The mean of a column inside and outside of the slice; NaN in a draw that has no row there."""
    inside, outside = (
        np.divide(part[:, column], part[:, 0], out=np.full(len(part), np.nan), where=part[:, 0] > 0.5) for part in pair
    )
    return inside, outside


def _p_value(gap: float, gaps: Floats, sizes: tuple[int, int]) -> float:
    """Two-sided p-value of no gap, with `sizes` photographs inside and outside of the slice.

    If all rows inside are equal and all rows outside are equal, the draws do not vary. The p-value is then that of the
    permutation test: of all ways to split the photographs, only this one and its mirror image are as extreme.
    """
    from scipy.special import comb, ndtr

    if abs(gap) <= NOISE:
        return 1.0
    known = gaps[~np.isnan(gaps)]
    spread = float(known.std()) if len(known) else 0.0
    if spread <= NOISE:
        return min(1.0, float(2 / comb(sum(sizes), sizes[0])))
    return float(2 * ndtr(-abs(gap) / spread))


def _corrected(table: pl.DataFrame) -> pl.DataFrame:
    from scipy.stats import false_discovery_control

    names = [f"{name}_p" for name in SLICE_FIGURES]
    large = table["enough"].to_numpy()
    values = table.select(names).to_numpy().copy()
    if large.any():
        values[large] = false_discovery_control(values[large].ravel()).reshape(-1, len(names))
    unsure = [f"{name}_{part}" for name in SLICE_FIGURES for part in ("gap", "gap_low", "gap_high", "p")]
    table = table.with_columns(pl.Series(name, values[:, at]) for at, name in enumerate(names))
    return table.with_columns(pl.when("enough").then(pl.col(name)).alias(name) for name in unsure)
