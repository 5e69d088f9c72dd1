"""The style of plots, and their conversion to SVG for a page.

Plots have the colours of a light page. In the SVG these are replaced by the page's CSS variables, so that the same plot
fits a dark page as well.
"""

import io
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

INK, MUTED, LINE = "#1f2328", "#59636e", "#d1d9e0"
FIRST, SECOND, ON_FIRST = "#2a6fdb", "#b3541e", "#fdfdfe"
VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", FIRST: "first", SECOND: "second", ON_FIRST: "on-first"}
"""Each colour, and the CSS variable that replaces it."""

STYLE: dict[Any, Any] = {
    "font.size": 9.0, "text.color": INK, "axes.labelcolor": MUTED, "axes.edgecolor": LINE, "axes.titlecolor": INK,
    "axes.titlesize": 10.0, "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": LINE, "grid.linewidth": 0.6, "xtick.color": MUTED,
    "ytick.color": MUTED, "legend.frameon": False, "lines.linewidth": 1.8, "svg.fonttype": "none",
}  # fmt: skip


def save(figure: Figure, name: str, folder: Path) -> str:
    """Write a plot as `NAME.png`, and return it as SVG."""
    figure.savefig(folder / f"{name}.png", dpi=130, facecolor="white")
    figure.set_layout_engine("none")  # the layout is computed already
    return svg(figure, name)


def svg(figure: Figure, salt: str) -> str:
    """Convert a plot to SVG; `salt` makes its element ids reproducible, and unique among the plots of a page."""
    drawing = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": salt}):
        figure.savefig(drawing, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return inline(drawing.getvalue())


def inline(svg: str) -> str:
    """SVG without XML declaration and size, its colours replaced by CSS variables."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1))
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, f"var(--{variable})")
    return body
