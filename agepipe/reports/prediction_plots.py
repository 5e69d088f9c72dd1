"""Plots of how far answers are off, and of whether probabilities mean what they say."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from agepipe.evaluation.compute import YEARS
from agepipe.evaluation.coverage import Sets
from agepipe.evaluation.metrics import Judged
from agepipe.model.calibration import BINS, Reliability
from agepipe.reports.theme import FIRST, INK, MUTED, SECOND

MOST_YEARS = 20
"""Years to which the cumulative score is drawn."""


def age_plot(judged: Judged) -> Figure:
    """How far predictions lie from the true age, in bins of five years: median, the middle half, and nine tenths."""
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    centres, quantiles = error_by_age(judged)
    low, first, median, third, high = quantiles
    axes.fill_between(centres, low, high, color=FIRST, alpha=0.14, lw=0, label="nine of ten")
    axes.fill_between(centres, first, third, color=FIRST, alpha=0.28, lw=0, label="the middle half")
    axes.plot(centres, median, color=FIRST, marker="o", ms=3.5, label="median")
    axes.axhline(0, color=INK, lw=0.9)
    axes.set(xlabel="true age, years", ylabel="predicted − true, years")
    figure.legend(loc="outside upper right", ncols=3)
    return figure


def error_by_age(judged: Judged, width: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the age bins that have rows, `(bins,)`, and the 5, 25, 50, 75, 95 % quantiles of the error there."""
    bins = judged.ages.astype(int) // width
    errors = judged.years - judged.ages
    found = np.unique(bins)
    quantiles = [np.quantile(errors[bins == k], (0.05, 0.25, 0.5, 0.75, 0.95)) for k in found]
    return found * width + (width - 1) / 2, np.array(quantiles).T


def cumulative_plot(judged: Judged, median: float) -> Figure:
    """Share of the rows whose predicted age lies within so many years, beside that of always saying the median age."""
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    years = np.linspace(0, MOST_YEARS, 81)
    for errors, label, colour, style in (
        (judged.errors, "the model", FIRST, "-"), (np.abs(judged.ages - median), "the median age", SECOND, "--"),
    ):  # fmt: skip
        axes.plot(years, [(errors <= limit).mean() for limit in years], color=colour, ls=style, label=label)
    for limit in YEARS:
        share = float((judged.errors <= limit).mean())
        axes.plot(limit, share, "o", ms=4, color=FIRST)
        axes.annotate(f"{share:.0%}", (limit, share), (6, -11), textcoords="offset points", color=INK)
    axes.set(xlabel="within so many years", ylabel="share of rows", xlim=(0, MOST_YEARS), ylim=(0, 1))
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    figure.legend(loc="outside upper right", ncols=2)
    return figure


def calibration_plot(before: Reliability, after: Reliability, temperature: float) -> Figure:
    """Share of correct predictions, and number of rows, at each confidence."""
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    shares, counts = figure.subplots(1, 2, width_ratios=(1.15, 1))
    shares.plot((0, 1), (0, 1), color=MUTED, lw=0.9, ls=":", label="perfect")
    if temperature != 1.0:
        _reliability(shares, before, SECOND, "--", "before scaling")
    _reliability(shares, after, FIRST, "-", "after scaling")
    shares.set(xlabel="confidence", ylabel="share correct", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    shares.set_anchor("W")
    width = 1 / BINS
    counts.bar((after.confidence * BINS).astype(int) * width, after.rows, width * 0.88, align="edge", color=FIRST)
    counts.set(xlabel="confidence", ylabel="rows", xlim=(0, 1))
    for axes in (shares, counts):
        axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    shares.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    figure.legend(loc="outside upper right", ncols=3)
    return figure


def _reliability(axes: Axes, found: Reliability, colour: str, style: str, label: str) -> None:
    """A line through the bins; bigger dots stand for more rows."""
    axes.plot(found.confidence, found.accuracy, color=colour, ls=style, lw=1.2, label=label)
    axes.scatter(found.confidence, found.accuracy, 6 + 150 * found.rows / found.rows.sum(), color=colour, zorder=3)


def sets_plot(sets: Sets, labels: NDArray[np.int64]) -> Figure:
    """How many rows have a set of each size, and how often sets of each size hold the true range."""
    figure = Figure(figsize=(9.6, 2.9), layout="constrained")
    rows, held = figure.subplots(1, 2)
    sizes, count = np.unique(sets.size, return_counts=True)
    inside = (sets.low <= labels) & (labels <= sets.high)
    _bars(rows, sizes, count / count.sum(), "share of rows")
    _bars(held, sizes, np.array([inside[sets.size == size].mean() for size in sizes]), "true range inside")
    held.axhline(sets.level / 100, color=SECOND, ls="--", lw=1.2)
    held.set_ylim(0, 1)
    return figure


def _bars(axes: Axes, sizes: NDArray[np.int64], shares: NDArray[np.float64], title: str) -> None:
    axes.bar(sizes, shares, 0.8, color=FIRST)
    axes.set(xlabel="ranges in the set", title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
