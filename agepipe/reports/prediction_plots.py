"""Plots of age errors, calibration and prediction sets."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from agepipe.evaluation.compute import YEARS
from agepipe.evaluation.coverage import Sets
from agepipe.evaluation.metrics import Predictions
from agepipe.model.calibration import BINS, Reliability
from agepipe.reports.theme import FIRST, INK, MUTED, SECOND

MAX_YEARS = 20
"""Largest error of the cumulative plot, years."""


def age_plot(predictions: Predictions) -> Figure:
    """Plot the error of the predicted age by true age: median, middle 50 % and middle 90 % in bins of five years."""
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    centres, quantiles = error_by_age(predictions)
    low, first, median, third, high = quantiles
    axes.fill_between(centres, low, high, color=FIRST, alpha=0.14, lw=0, label="nine of ten")
    axes.fill_between(centres, first, third, color=FIRST, alpha=0.28, lw=0, label="the middle half")
    axes.plot(centres, median, color=FIRST, marker="o", ms=3.5, label="median")
    axes.axhline(0, color=INK, lw=0.9)
    axes.set(xlabel="true age, years", ylabel="predicted − true, years")
    figure.legend(loc="outside upper right", ncols=3)
    return figure


def error_by_age(predictions: Predictions, width: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles of the age error by true age.

    Args:
        predictions: labels and predictions.
        width: width of a bin, years.

    Returns:
        Centres of the bins that have rows, `(bins,)`, and the 5, 25, 50, 75 and 95 % quantiles of the error, years,
        `(5, bins)`.
    """
    bins = predictions.ages.astype(int) // width
    errors = predictions.years - predictions.ages
    found = np.unique(bins)
    quantiles = [np.quantile(errors[bins == k], (0.05, 0.25, 0.5, 0.75, 0.95)) for k in found]
    return found * width + (width - 1) / 2, np.array(quantiles).T


def cumulative_plot(predictions: Predictions, median: float) -> Figure:
    """Plot the share of rows with at most a given age error, for the model and for guessing the median age."""
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    years = np.linspace(0, MAX_YEARS, 81)
    for errors, label, colour, style in (
        (predictions.errors, "the model", FIRST, "-"),
        (np.abs(predictions.ages - median), "the median age", SECOND, "--"),
    ):  # fmt: skip
        axes.plot(years, [(errors <= limit).mean() for limit in years], color=colour, ls=style, label=label)
    for limit in YEARS:
        share = float((predictions.errors <= limit).mean())
        axes.plot(limit, share, "o", ms=4, color=FIRST)
        axes.annotate(f"{share:.0%}", (limit, share), (6, -11), textcoords="offset points", color=INK)
    axes.set(xlabel="within so many years", ylabel="share of rows", xlim=(0, MAX_YEARS), ylim=(0, 1))
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    figure.legend(loc="outside upper right", ncols=2)
    return figure


def calibration_plot(before: Reliability, after: Reliability, temperature: float) -> Figure:
    """Plot the share of correct predictions, and the number of rows, by confidence."""
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
    """Plot a line through the bins; the area of a dot is proportional to the bin's rows."""
    axes.plot(found.confidence, found.accuracy, color=colour, ls=style, lw=1.2, label=label)
    axes.scatter(found.confidence, found.accuracy, 6 + 150 * found.rows / found.rows.sum(), color=colour, zorder=3)


def sets_plot(sets: Sets, labels: NDArray[np.int64]) -> Figure:
    """Plot the number of rows with a prediction set of each size, and the coverage of these sets."""
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
