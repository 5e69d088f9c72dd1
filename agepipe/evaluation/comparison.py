"""Paired differences between two models on the same rows, for every comparison of two models.

The report's champion column, the comparison page and the promotion gate all call `paired_differences`. Both models are
evaluated on the same bootstrap draws of groups of copies, so differences in difficulty between rows cancel.

A family is the set of differences that a reader looks at together. Looking at many differences finds some by chance, so
the intervals of a family are simultaneous: with the given confidence all of them hold at once. The half-width of each
interval is a number of bootstrap standard deviations, the same for the whole family: the quantile, over the draws, of
the largest deviation in the family (the max-t method; Hothorn, Bretz and Westfall, "Simultaneous inference in general
parametric models", 2008). That costs less than Bonferroni's correction where the differences are correlated, as those
of slices and figures are. The interval of a family of one is that of a single test; a larger family only widens it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

from agepipe.config.stages import LOWER_IS_BETTER, EvaluateSettings
from agepipe.core.errors import DataError
from agepipe.evaluation.bootstrap import Floats, column_sums, drawn, group_sums, scores_of
from agepipe.evaluation.metrics import FIGURES, Predictions, check_figures
from agepipe.evaluation.slice_table import SLICE_FIGURES
from agepipe.evaluation.slices import Slice, slices

COMPARED = ("accuracy", "within_one", "macro_recall", "mae", "loss")
"""The figures of `FIGURES` that a comparison page shows; all of `FIGURES` are in the family of its intervals."""
AGES_ONLY = ("mae",)
"""The figures that do not depend on the ranges."""
NOISE = 1e-9
"""Differences up to this are rounding: floats were summed in another order."""


class Difference(NamedTuple):
    """How far one model is from another on the same rows."""

    first: float
    second: float
    difference: float
    """First minus second, in the figure's unit; for `mae`, `loss` and `ece` negative is better."""
    low: float
    high: float
    share_better: float
    """Share of the draws in which the first is strictly better."""


class Exact(BaseModel):
    """McNemar's test on the photographs for which only one of the two models predicts the right range."""

    model_config = ConfigDict(frozen=True)

    photographs: int
    both: int
    first_only: int
    second_only: int
    p: float
    """P-value: the probability of counts that differ at least as much, if both are equally often right."""


class SliceChange(BaseModel):
    """Differences between two models on a slice of the rows; `changes` is empty if the slice is too small."""

    model_config = ConfigDict(frozen=True)

    kind: str
    name: str
    rows: int
    photographs: int
    changes: dict[str, Difference]


class PairedDifferences(BaseModel):
    """How far one model is from another on the same rows."""

    model_config = ConfigDict(frozen=True)

    figures: dict[str, Difference]
    slices: tuple[SliceChange, ...] = ()
    exact: Exact | None = None
    """None if it was not computed, or if the two have different ranges."""


def paired_differences(
    groups: ArrayLike,
    first: Predictions,
    second: Predictions,
    settings: EvaluateSettings,
    *,
    figures: tuple[str, ...] = FIGURES,
    parts: Sequence[Slice] = (),
    slice_figures: tuple[str, ...] = SLICE_FIGURES,
) -> PairedDifferences:
    """Compare two models on the same rows, first minus second, on one set of draws of the groups.

    Args:
        groups: name of the group of copies of each row, `(n,)`.
        first: what the first model predicts for the rows.
        second: what the second model predicts for the same rows.
        settings: draws, confidence, seed, and the least number of photographs of a slice.
        figures: the family of figures on all rows, names out of `FIGURES`: all of them if a reader sees several, only
            the one that was chosen beforehand for a single test.
        parts: the slices to compare on; together with `slice_figures` a second family.
        slice_figures: names out of `SLICE_FIGURES`.

    Raises:
        DataError: no rows, not the same rows, not one group a row, or an unknown figure.
    """
    check_figures(figures)
    if len(first.labels) != len(second.labels):
        raise DataError(f"rows: {len(first.labels)} and {len(second.labels)}; two models are compared on the same.")
    names = np.asarray(groups)
    photographs = [len(np.unique(names[part.rows])) for part in parts]
    large = [part for part, count in zip(parts, photographs, strict=True) if count >= settings.min_slice]
    # side by side in one matrix, because drawing the groups takes longest
    columns = [group_sums(names, rows) for rows in (first, second)]
    columns.append(_slice_sums(names, large, first, second, slice_figures))
    sums, ends = np.hstack(columns), np.cumsum([part.shape[1] for part in columns])[:-1]
    totals = np.vstack([sums.sum(axis=0), drawn(sums, settings.draws, settings.seed)])
    of_first, of_second, of_slices = np.split(totals, ends, axis=1)
    ours, theirs = (
        scores_of(part, rows.probabilities.shape[1]) for part, rows in ((of_first, first), (of_second, second))
    )
    values = [(float(ours[name][0]), float(theirs[name][0])) for name in figures]
    gaps = np.stack([ours[name][1:] - theirs[name][1:] for name in figures], axis=1)
    changes = _on_slices(large, first, second, slice_figures, of_slices[1:], settings.confidence)
    return PairedDifferences(
        figures=dict(zip(figures, simultaneous(figures, values, gaps, settings.confidence), strict=True)),
        slices=tuple(
            SliceChange(
                kind=part.kind, name=part.name, rows=int(part.rows.sum()), photographs=count,
                changes=changes.get((part.kind, part.name), {}),
            )
            for part, count in zip(parts, photographs, strict=True)
        ),
    )  # fmt: skip


def compare_pair(
    table: pl.DataFrame,
    first: Predictions,
    second: Predictions,
    names: tuple[str, ...],
    settings: EvaluateSettings,
    *,
    same_ranges: bool = True,
) -> PairedDifferences:
    """Everything that a comparison page shows of two models: the figures of `COMPARED`, McNemar's test, every slice.

    Args:
        table: the rows, with the columns `group`, `label` and those of `agepipe.evaluation.slices.slices`.
        first: what the first model predicts for the rows.
        second: what the second model predicts for the same rows.
        names: names of the ranges for the slices, in class order.
        settings: draws, confidence, seed, and the least number of photographs of a slice.
        same_ranges: whether the two have the same ranges; otherwise only the age error is compared.
    """
    groups = table["group"].to_numpy()
    of_all, of_slices, shown = (FIGURES, SLICE_FIGURES, COMPARED) if same_ranges else (AGES_ONLY,) * 3
    found = paired_differences(
        groups, first, second, settings, figures=of_all, parts=slices(table, names), slice_figures=of_slices
    )
    return PairedDifferences(
        figures={name: found.figures[name] for name in shown}, slices=found.slices,
        exact=mcnemar(groups, first, second) if same_ranges else None,
    )  # fmt: skip


def _slice_sums(
    groups: NDArray[Any],
    parts: list[Slice],
    first: Predictions,
    second: Predictions,
    figures: tuple[str, ...],
) -> Floats:
    """For each group, its number of rows in each slice and, for each figure, its sum of differences in each slice.

    Returns:
        float64 `(groups, slices (1 + figures))`.
    """
    masks = np.array([part.rows for part in parts], dtype=np.float64).reshape(len(parts), len(first.labels)).T
    gaps = [masks * (_values(first, name) - _values(second, name))[:, None] for name in figures]
    return column_sums(groups, np.hstack([masks, *gaps]))


def _on_slices(
    parts: list[Slice],
    first: Predictions,
    second: Predictions,
    figures: tuple[str, ...],
    draws: Floats,
    confidence: float,
) -> dict[tuple[str, str], dict[str, Difference]]:
    """Differences by a slice's kind and name, from the draws of `_slice_sums`, with simultaneous intervals."""
    counts, *totals = np.split(draws, len(figures) + 1, axis=1)
    gaps = np.hstack([total / np.maximum(counts, 1) for total in totals])
    means = [(_values(first, name), _values(second, name)) for name in figures]
    values = [
        (float(ours[part.rows].mean()), float(theirs[part.rows].mean())) for ours, theirs in means for part in parts
    ]
    found = simultaneous([name for name in figures for _ in parts], values, gaps, confidence)
    return {
        (part.kind, part.name): dict(zip(figures, found[at :: len(parts)], strict=True))
        for at, part in enumerate(parts)
    }


def _values(rows: Predictions, figure: str) -> Floats:
    """Values of the rows, of which a figure of `SLICE_FIGURES` is the mean, float64 `(n,)`."""
    return rows.errors if figure == "mae" else rows.right.astype(np.float64)


def simultaneous(
    names: Sequence[str], values: list[tuple[float, float]], draws: Floats, confidence: float
) -> list[Difference]:
    """Differences with simultaneous intervals.

    Args:
        names: the figure of each difference.
        values: the figure of the first and of the second model on all rows, for each difference.
        draws: the differences on each draw of the groups, `(draws, differences)`.
        confidence: joint coverage of all intervals.
    """
    apart = np.array([first - second for first, second in values])
    half = half_widths(draws, confidence)
    better = np.array([-1.0 if name in LOWER_IS_BETTER else 1.0 for name in names]) * draws > NOISE
    return [
        Difference(
            *values[at], float(apart[at]), float(apart[at] - half[at]), float(apart[at] + half[at]),
            float(better[:, at].mean()),
        )
        for at in range(len(values))
    ]  # fmt: skip


def half_widths(draws: Floats, confidence: float) -> Floats:
    """Half the width of each simultaneous interval, `(k,)`, from the draws `(draws, k)`."""
    deviation = draws.std(axis=0)
    apart = np.abs(draws - draws.mean(axis=0))
    largest = np.divide(apart, deviation, out=np.zeros_like(apart), where=deviation > NOISE).max(axis=1, initial=0.0)
    return np.asarray(np.quantile(largest, confidence) * deviation)


def significance(change: Difference, figure: str) -> int:
    """1 if the first is significantly better, -1 if it is significantly worse, else 0."""
    above = int(change.low > NOISE) - int(change.high < -NOISE)
    return -above if figure in LOWER_IS_BETTER else above


def mcnemar(groups: ArrayLike, first: Predictions, second: Predictions) -> Exact:
    """McNemar's exact test on whether each model predicts the right range (McNemar 1947; binomial distribution).

    Copies of a photograph are not independent, so only the first row of each group counts.
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
