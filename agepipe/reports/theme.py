"""How plots look, and how they get into a page.

Each is drawn once, in the colours of a light page. Inside the report these colours become the page's own, so that the
same drawing is right on a dark one.
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
"""The colour of each role on a light page, and the name of the page's variable for it."""

STYLE: dict[Any, Any] = {
    "font.size": 9.0, "text.color": INK, "axes.labelcolor": MUTED, "axes.edgecolor": LINE, "axes.titlecolor": INK,
    "axes.titlesize": 10.0, "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": LINE, "grid.linewidth": 0.6, "xtick.color": MUTED,
    "ytick.color": MUTED, "legend.frameon": False, "lines.linewidth": 1.8, "svg.fonttype": "none",
}  # fmt: skip


def save(figure: Figure, name: str, folder: Path) -> str:
    """Write `NAME.png`; returns the plot as SVG for a page."""
    figure.savefig(folder / f"{name}.png", dpi=130, facecolor="white")
    figure.set_layout_engine("none")  # what was laid out once need not be again
    return svg(figure, name)


def svg(figure: Figure, salt: str) -> str:
    """The plot as SVG for a page; `salt` makes its identifiers the same each time, and other than another plot's."""
    drawing = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": salt}):
        figure.savefig(drawing, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return inline(drawing.getvalue())


def inline(svg: str) -> str:
    """The SVG without its XML head, its size left to the page and its colours replaced by the page's variables."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1))
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, f"var(--{variable})")
    return body
