"""One model against another on the same rows: figures, right and wrong ranges, and slices, each with its doubt.

Every figure and slice is judged on the same draws of groups, so what makes some rows harder than others cancels.
Looking at many differences finds some by chance, so intervals are simultaneous: with the wished confidence all
of a table hold at once. They are as many bootstrap deviations wide as the largest of all the table's differences is in
that share of the draws (the max-t method; Hothorn, Bretz and Westfall, "Simultaneous inference in general parametric
models", 2008). That costs less than Bonferroni's where the differences go together, as those of slices and figures do.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

from agepipe.config.stages import LOWER_IS_BETTER, EvaluateSettings
from agepipe.evaluation.bootstrap import Difference, Floats, column_sums, drawn, scores_of_both
from agepipe.evaluation.metrics import Judged
from agepipe.evaluation.slices import Slice, slices

COMPARED = ("accuracy", "within_one", "macro_recall", "mae", "loss")
"""The figures by which two models are compared."""
NOISE = 1e-9
"""A difference up to this is one of rounding: sums of floats in another order make it."""


class Exact(BaseModel):
    """McNemar's test: photographs that only one of the two puts into the right range, and how likely by chance."""

    model_config = ConfigDict(frozen=True)

    photographs: int
    both: int
    first_only: int
    second_only: int
    p: float
    """Probability, were the two equally often right, of counts that differ at least as much."""


class SliceChange(BaseModel):
    """How far one model is from another on a slice of the rows; no changes where the slice is too small to judge."""

    model_config = ConfigDict(frozen=True)

    kind: str
    name: str
    rows: int
    photographs: int
    changes: dict[str, Difference]


class Versus(BaseModel):
    """A model against the first of those compared; differences are that model's figure minus the first's."""

    model_config = ConfigDict(frozen=True)

    figures: dict[str, Difference]
    exact: Exact | None
    """None where the two have different ranges."""
    slices: tuple[SliceChange, ...]


def versus(
    table: pl.DataFrame,
    first: Judged,
    second: Judged,
    names: tuple[str, ...],
    settings: EvaluateSettings,
    *,
    same_ranges: bool = True,
) -> Versus:
    """Compare two models on labelled rows.

    Args:
        table: the rows, `group`, `label` and what slices are made of among the columns.
        first: what the model says about them.
        second: what the one that it is compared with says.
        names: the ranges by which slices are named, in class order.
        settings: draws, confidence, seed, and the least support of a slice.
        same_ranges: whether the two have the same ranges; otherwise only years compare.
    """
    figures = COMPARED if same_ranges else ("mae",)
    groups, parts = table["group"].to_numpy(), slices(table, names)
    by_slice = tuple(name for name in ("accuracy", "mae") if name in figures)
    return Versus(
        figures=changes(groups, first, second, figures, settings),
        exact=mcnemar(groups, first, second) if same_ranges else None,
        slices=slice_changes(table, parts, first, second, settings, figures=by_slice),
    )


def changes(
    groups: ArrayLike, first: Judged, second: Judged, figures: tuple[str, ...], settings: EvaluateSettings
) -> dict[str, Difference]:
    """The differences in some figures, first minus second, with simultaneous intervals."""
    whole, draws = scores_of_both(groups, first, second, draws=settings.draws, seed=settings.seed)
    stacked = np.stack([draws[0][name] - draws[1][name] for name in figures], axis=1)
    values = [(float(whole[0][name][0]), float(whole[1][name][0])) for name in figures]
    return dict(zip(figures, simultaneous(figures, values, stacked, settings.confidence), strict=True))


def slice_changes(
    table: pl.DataFrame,
    parts: Sequence[Slice],
    first: Judged,
    second: Judged,
    settings: EvaluateSettings,
    *,
    figures: tuple[str, ...],
) -> tuple[SliceChange, ...]:
    """The differences on slices in `accuracy` and `mae`, both means over rows; their intervals hold all at once."""
    support = [table["group"].filter(pl.Series(part.rows)).n_unique() for part in parts]
    judged = [part for part, count in zip(parts, support, strict=True) if count >= settings.min_slice]
    found = iter(_sliced(table["group"].to_numpy(), judged, first, second, figures, settings)) if judged else iter(())
    return tuple(
        SliceChange(
            kind=part.kind, name=part.name, rows=int(part.rows.sum()), photographs=count,
            changes=next(found) if count >= settings.min_slice else {},
        )
        for part, count in zip(parts, support, strict=True)
    )  # fmt: skip


def _sliced(
    groups: ArrayLike,
    parts: list[Slice],
    first: Judged,
    second: Judged,
    figures: tuple[str, ...],
    settings: EvaluateSettings,
) -> Iterator[dict[str, Difference]]:
    masks = np.stack([part.rows for part in parts], axis=1).astype(np.float64)
    means = [(_means(first, name), _means(second, name)) for name in figures]
    columns = np.hstack([masks, *(masks * (ours - theirs)[:, None] for ours, theirs in means)])
    sums = column_sums(groups, columns)
    counts, *totals = np.split(drawn(sums, settings.draws, settings.seed), len(figures) + 1, axis=1)
    draws = np.hstack([total / np.maximum(counts, 1) for total in totals])
    values = [
        (float(ours[part.rows].mean()), float(theirs[part.rows].mean())) for ours, theirs in means for part in parts
    ]
    names = [name for name in figures for _ in parts]
    found = simultaneous(names, values, draws, settings.confidence)
    for place in range(len(parts)):
        yield {name: found[at * len(parts) + place] for at, name in enumerate(figures)}


def _means(rows: Judged, figure: str) -> Floats:
    """What each row adds to a figure that is a mean over rows, float64 `(n,)`."""
    return rows.errors if figure == "mae" else rows.right.astype(np.float64)


def simultaneous(
    names: Sequence[str], values: list[tuple[float, float]], draws: Floats, confidence: float
) -> list[Difference]:
    """Differences whose intervals hold all at once.

    Args:
        names: the figure of each difference.
        values: the figure of the first and of the second model on all rows, for each difference.
        draws: the differences on each draw of the groups, `(draws, differences)`.
        confidence: with which all intervals hold at once.
    """
    apart = np.array([first - second for first, second in values])
    half = half_widths(draws, confidence)
    better = np.array([-1.0 if name in LOWER_IS_BETTER else 1.0 for name in names]) * draws > 0
    return [
        Difference(
            *values[at], float(apart[at]), float(apart[at] - half[at]), float(apart[at] + half[at]),
            float(better[:, at].mean()),
        )
        for at in range(len(values))
    ]  # fmt: skip


def half_widths(draws: Floats, confidence: float) -> Floats:
    """Half the width of each simultaneous interval, `(k,)`, from the draws of all, `(draws, k)`."""
    deviation = draws.std(axis=0)
    apart = np.abs(draws - draws.mean(axis=0))
    largest = np.divide(apart, deviation, out=np.zeros_like(apart), where=deviation > 0).max(axis=1)
    return np.asarray(np.quantile(largest, confidence) * deviation)


def surely(change: Difference, figure: str) -> int:
    """1 where the first is significantly better, -1 where it is significantly worse, 0 where neither can be told."""
    above = int(change.low > NOISE) - int(change.high < -NOISE)
    return -above if figure in LOWER_IS_BETTER else above


def mcnemar(groups: ArrayLike, first: Judged, second: Judged) -> Exact:
    """McNemar's exact test on whether each names the right range (McNemar 1947; exact by the binomial distribution).

    Copies of a photograph are no independent rows, so each group counts with its first row alone.
    """
    from scipy.stats import binomtest  # takes long to import

    one: NDArray[np.intp] = np.unique(np.asarray(groups), return_index=True)[1]
    ours, theirs = (rows.right[one] for rows in (first, second))
    only_first, only_second = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    apart = only_first + only_second
    return Exact(
        photographs=len(one), both=int((ours & theirs).sum()), first_only=only_first, second_only=only_second,
        p=float(binomtest(only_first, apart).pvalue) if apart else 1.0,
    )  # fmt: skip
