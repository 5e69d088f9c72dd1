"""The plots of an evaluation, as PNG files for the tracking store and as SVG for the report."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from agepipe.evaluation.result import Outcome
from agepipe.reports.prediction_plots import age_plot, calibration_plot, cumulative_plot, sets_plot
from agepipe.reports.theme import FIRST, INK, MUTED, ON_FIRST, SECOND, STYLE, save

MAX_LABELLED = 20
"""Largest number of classes for which the cells of the confusion matrix contain numbers."""
CURVES = (
    ("macro_precision", "precision", False), ("macro_recall", "recall", False), ("loss", "loss, nats", False),
    ("macro_precision", "precision error (1 − precision)", True),
    ("macro_recall", "recall error (1 − recall)", True), ("mae", "age error, years", False),
)  # fmt: skip
"""Column, title, and whether one minus the value is plotted, for two rows of three plots."""

PICTURES = (
    ("precision", CURVES[0]), ("recall", CURVES[1]), ("precision-error", CURVES[3]), ("recall-error", CURVES[4]),
)  # fmt: skip
"""File name and curve of the plots that every training logs in its MLflow run."""

PARTS = (("train", "training", SECOND, "--"), ("validation", "validation", FIRST, "-"))
"""Prefix of the columns, label, colour and line style of training and validation."""


def draw(outcome: Outcome, folder: Path) -> dict[str, str]:
    """Write each plot as PNG, such as `confusion.png`.

    Returns:
        The plots as SVG, by name. `curves` is missing for an imported model, `sets` for one without prediction sets.
    """
    with mpl.rc_context(STYLE):
        return {name: save(figure, name, folder) for name, figure in _plots(outcome)}


def draw_curves(curves: pl.DataFrame, best: int, folder: Path) -> None:
    """Write `precision.png`, `recall.png`, `precision-error.png` and `recall-error.png`, all from 0 to 1.

    Args:
        curves: a row for each epoch, as in a bundle.
        best: number of the best epoch, which is marked by a line; 0 for no line.
        folder: folder of the files.
    """
    with mpl.rc_context(STYLE):
        for name, curve in PICTURES:
            curve_plot(curves, curve, best).savefig(folder / f"{name}.png", dpi=130, facecolor="white")


def _plots(outcome: Outcome) -> Iterator[tuple[str, Figure]]:
    yield "confusion", confusion_plot(outcome.confusion, outcome.card.ranges.words)
    if len(outcome.curves):
        yield "curves", curves_plot(outcome.curves)
    yield "age", age_plot(outcome.predictions)
    yield "cumulative", cumulative_plot(outcome.predictions, np.median(outcome.predictions.ages))
    yield "calibration", calibration_plot(outcome.before, outcome.after, outcome.card.temperature)
    if outcome.sets is not None:
        yield "sets", sets_plot(outcome.sets, outcome.predictions.labels)


def confusion_plot(counts: np.ndarray, names: tuple[str, ...]) -> Figure:
    """Plot a confusion matrix with counts and shares of each true range.

    Args:
        counts: int `(classes, classes)`: a row for each true, a column for each predicted class.
        names: names of the classes.
    """
    classes = len(names)
    side = 7.6 if classes > 8 else 5.2
    figure = Figure(figsize=(side, side * 0.94), layout="constrained")
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    if classes > MAX_LABELLED:
        axes.pcolormesh(shares, cmap=_ramp(), vmin=0, vmax=1, rasterized=True)
    else:
        _cells(axes, counts, shares)
    _name_axes(axes, names)
    return figure


def _ramp() -> mpl.colors.LinearSegmentedColormap:
    """Colour map from transparent to `FIRST`."""
    return mpl.colors.LinearSegmentedColormap.from_list("share", [FIRST + "00", FIRST + "ff"])


def _cells(axes: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    size = 7.0 if len(counts) > 8 else 9.0
    for true, predicted in np.argwhere(counts > 0):
        share = shares[true, predicted]
        axes.add_patch(Rectangle((predicted, true), 1, 1, facecolor=FIRST, alpha=float(share) * 0.9 + 0.05, lw=0))
        text = f"{counts[true, predicted]}\n{share:.0%}"
        colour = ON_FIRST if share > 0.55 else INK
        axes.text(predicted + 0.5, true + 0.5, text, ha="center", va="center", fontsize=size, color=colour)


def _name_axes(axes: Axes, names: tuple[str, ...]) -> None:
    step = max(1, len(names) // MAX_LABELLED)
    at = np.arange(0, len(names), step)
    axes.set(xlim=(0, len(names)), ylim=(len(names), 0), xlabel="predicted range", ylabel="true range", aspect="equal")
    axes.set_xticks(at + 0.5, [names[k] for k in at], rotation=90 if len(names) > 8 else 0)
    axes.set_yticks(at + 0.5, [names[k] for k in at])
    axes.grid(visible=False)
    if len(names) <= MAX_LABELLED:
        axes.set_xticks(range(len(names)), minor=True)
        axes.set_yticks(range(len(names)), minor=True)
        axes.grid(which="minor", lw=0.4)
    axes.tick_params(which="both", length=0)


def curves_plot(curves: pl.DataFrame) -> Figure:
    """Precision, recall, the error of each, loss and age error over epochs; training beside validation."""
    figure = Figure(figsize=(9.6, 5.4), layout="constrained")
    plots = figure.subplots(2, 3, sharex=True)
    for axes, curve in zip(plots.ravel(), CURVES, strict=True):
        _curve(axes, curves, *curve)
    for axes in plots[1]:
        axes.set_xlabel("epoch")
    figure.legend(*plots[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def curve_plot(curves: pl.DataFrame, curve: tuple[str, str, bool], best: int) -> Figure:
    """Plot one of `CURVES` on an axis from 0 to 1, with a line at the best epoch unless it is 0."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    _curve(axes, curves, *curve)
    axes.set(xlabel="epoch", ylim=(0, 1))
    if best:
        axes.axvline(best, color=MUTED, lw=0.9, ls=":", label=f"kept: epoch {best}")
    figure.legend(loc="outside upper right", ncols=3)
    return figure


def _curve(axes: Axes, curves: pl.DataFrame, column: str, title: str, error: bool) -> None:
    """Plot a column, or one minus it, over epochs, for training and if it exists for validation."""
    marker = "o" if len(curves) < 3 else ""
    for part, label, colour, style in PARTS:
        if (name := f"{part}_{column}") in curves.columns:
            values = curves[name].to_numpy()
            plotted = 1 - values if error else values
            axes.plot(curves["epoch"], plotted, color=colour, ls=style, marker=marker, label=label)
    axes.set_title(title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
