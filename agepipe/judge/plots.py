"""The plots of an evaluation: as PNG files for the tracking store, and as SVG for the report.

Each is drawn once, in the colours of a light page. Inside the report these colours become the page's own, so that the
same drawing is right on a dark one.
"""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from agepipe.judge.metrics import Judged
from agepipe.judge.outcome import Outcome

INK, MUTED, LINE = "#1f2328", "#59636e", "#d1d9e0"
FIRST, SECOND, ON_FIRST = "#2a6fdb", "#b3541e", "#fdfdfe"
VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", FIRST: "first", SECOND: "second", ON_FIRST: "on-first"}
"""The colour of each role on a light page, and the name of the page's variable for it."""

STYLE: dict[Any, Any] = {
    "font.size": 9.0, "text.color": INK, "axes.labelcolor": MUTED, "axes.edgecolor": LINE, "axes.titlecolor": INK,
    "axes.titlesize": 10.0, "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": LINE, "grid.linewidth": 0.6, "xtick.color": MUTED,
    "ytick.color": MUTED, "legend.frameon": False, "lines.linewidth": 1.8, "svg.fonttype": "none",
}  # fmt: skip

MOST_CELLS = 20
"""Classes up to which a confusion matrix has numbers in its cells."""
CURVES = (
    ("macro_precision", "precision", False), ("macro_recall", "recall", False), ("loss", "loss, nats", False),
    ("macro_precision", "precision error (1 − precision)", True),
    ("macro_recall", "recall error (1 − recall)", True), ("mae", "age error, years", False),
)  # fmt: skip
"""Column, title, and whether one minus the value is drawn: two rows of three plots."""

PICTURES = (
    ("precision", CURVES[0]), ("recall", CURVES[1]), ("precision-error", CURVES[3]), ("recall-error", CURVES[4]),
)  # fmt: skip
"""File and curve of the pictures that every training leaves in its run."""

PARTS = (("train", "training", SECOND, "--"), ("validation", "validation", FIRST, "-"))
"""Prefix of the columns, label, colour and line of each part of the rows."""


def draw(outcome: Outcome, folder: Path) -> dict[str, str]:
    """Write `confusion.png`, `curves.png` and `age.png`; returns each as SVG for the report, by name.

    A model without curves (an imported one) has no `curves`.
    """
    with mpl.rc_context(STYLE):
        return {name: _save(figure, name, folder) for name, figure in _figures(outcome)}


def draw_curves(curves: pl.DataFrame, kept: int, folder: Path) -> None:
    """Write `precision.png`, `recall.png`, `precision-error.png` and `recall-error.png`, all from 0 to 1.

    Args:
        curves: one row an epoch, as a bundle holds them.
        kept: the epoch whose weights were kept, which a line marks; 0 marks none.
        folder: where to write.
    """
    with mpl.rc_context(STYLE):
        for name, curve in PICTURES:
            curve_plot(curves, curve, kept).savefig(folder / f"{name}.png", dpi=130, facecolor="white")


def _figures(outcome: Outcome) -> Iterator[tuple[str, Figure]]:
    yield "confusion", confusion_plot(outcome.confusion, outcome.card.ranges.names)
    if len(outcome.curves):
        yield "curves", curves_plot(outcome.curves)
    yield "age", age_plot(outcome.judged)


def _save(figure: Figure, name: str, folder: Path) -> str:
    figure.savefig(folder / f"{name}.png", dpi=130, facecolor="white")
    figure.set_layout_engine("none")  # what was laid out once need not be again
    drawing = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(drawing, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return inline(drawing.getvalue())


def inline(svg: str) -> str:
    """The SVG without its XML head, its size left to the page and its colours replaced by the page's variables."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1))
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, f"var(--{variable})")
    return body


def confusion_plot(counts: np.ndarray, names: tuple[str, ...]) -> Figure:
    """Counts and row shares, int `(classes, classes)`: true ranges down, predicted ranges across, in class order."""
    classes = len(names)
    side = 7.6 if classes > 8 else 5.2
    figure = Figure(figsize=(side, side * 0.94), layout="constrained")
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    if classes > MOST_CELLS:
        axes.pcolormesh(shares, cmap=_ramp(), vmin=0, vmax=1, rasterized=True)
    else:
        _cells(axes, counts, shares)
    _name_axes(axes, names)
    return figure


def _ramp() -> mpl.colors.LinearSegmentedColormap:
    """From transparent to the first colour."""
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
    step = max(1, len(names) // MOST_CELLS)
    at = np.arange(0, len(names), step)
    axes.set(xlim=(0, len(names)), ylim=(len(names), 0), xlabel="predicted range", ylabel="true range", aspect="equal")
    axes.set_xticks(at + 0.5, [names[k] for k in at], rotation=90 if len(names) > 8 else 0)
    axes.set_yticks(at + 0.5, [names[k] for k in at])
    axes.grid(visible=False)
    if len(names) <= MOST_CELLS:
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


def curve_plot(curves: pl.DataFrame, curve: tuple[str, str, bool], kept: int) -> Figure:
    """One of `CURVES` alone, from 0 to 1, with a line at the epoch whose weights were kept (0: none)."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    _curve(axes, curves, *curve)
    axes.set(xlabel="epoch", ylim=(0, 1))
    if kept:
        axes.axvline(kept, color=MUTED, lw=0.9, ls=":", label=f"kept: epoch {kept}")
    figure.legend(loc="outside upper right", ncols=3)
    return figure


def _curve(axes: Axes, curves: pl.DataFrame, column: str, title: str, error: bool) -> None:
    """One column over epochs, or one minus it; training beside validation where there was one."""
    marker = "o" if len(curves) < 3 else ""
    for part, label, colour, style in PARTS:
        if (name := f"{part}_{column}") in curves.columns:
            values = curves[name].to_numpy()
            shown = 1 - values if error else values
            axes.plot(curves["epoch"], shown, color=colour, ls=style, marker=marker, label=label)
    axes.set_title(title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


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
