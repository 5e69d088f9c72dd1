"""The page of the data report: an HTML file with counts, a histogram, and pictures of conflicting groups."""

from collections.abc import Iterable
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray

from agepipe import __version__
from agepipe.data.audit import ROUND_FROM, Audit
from agepipe.data.filenames import GENDERS
from agepipe.data.pixel_store import open_pixels
from agepipe.data.records import Catalogue
from agepipe.reports.data_text import copy_rows, notes, summary
from agepipe.reports.inline_images import data_uri
from agepipe.reports.pages import template
from agepipe.reports.theme import FIRST, SECOND, STYLE, svg

GROUPS = 12
"""Largest number of groups of copies of each kind on the page."""
MEMBERS = 6
"""Largest number of photographs of a group on the page."""
EXAMPLES = 5
"""Largest number of rejects with the same reason on the page."""
SIDE = 96
"""Largest side of a picture on the page, px."""


def render(audit: Audit, catalogue: Catalogue) -> str:
    """Render the page as HTML; file names, like all text, are escaped."""
    table = pl.read_parquet(catalogue.table)
    pixels = open_pixels(catalogue.pixels)
    return template("data_report.html.j2").render(
        a=audit,
        summary=summary(audit),
        notes=notes(audit),
        copies=copy_rows(audit),
        histogram=Markup(histogram(audit)),
        galleries=_galleries(table, pixels),
        rejects=_reject_examples(pl.read_parquet(catalogue.rejects)),
        version=__version__,
    )


def histogram(audit: Audit) -> str:
    """Histogram of the ages as SVG in the page's colours; spikes have another colour."""
    ages, counts = zip(*audit.ages, strict=True) if audit.ages else ((), ())
    marked = {spike.age for spike in audit.spikes}
    with mpl.rc_context({**STYLE, "axes.grid.axis": "y"}):
        figure = Figure(figsize=(9.4, 2.9), layout="constrained")
        axes = figure.subplots()
        axes.bar(ages, counts, width=0.8, color=[SECOND if age in marked else FIRST for age in ages])
        axes.set_xlabel("age in the file name, years")
        axes.set_ylabel("photographs")
        axes.set_xlim(0, max((*ages, ROUND_FROM)) + 1)
        axes.tick_params(length=0)
        return svg(figure, "agepipe")


def _galleries(table: pl.DataFrame, pixels: NDArray[np.uint8]) -> list[dict[str, Any]]:
    """Groups to check: those with the most different ages, with different genders, and re-encoded copies."""
    groups = table.group_by("group").agg(
        pl.len(),
        spread=pl.col("age").max().cast(pl.Int64) - pl.col("age").min().cast(pl.Int64),
        genders=pl.col("gender").drop_nulls().n_unique(),
        files=pl.col("digest").n_unique(),
    )
    groups = groups.filter(pl.col("len") > 1).sort("spread", "len", "group", descending=[True, True, False])
    kinds = [
        ("The same photograph under different ages", groups.filter(pl.col("spread") > 0)),
        ("The same photograph under different genders", groups.filter(pl.col("genders") > 1)),
        ("Re-encoded copies", groups.filter(pl.col("files") > 1).sort("spread", "group")),
    ]
    return [
        {"title": title, "total": len(found), "groups": [_members(table, pixels, name) for name in _first(found)]}
        for title, found in kinds
        if len(found)
    ]


def _first(groups: pl.DataFrame) -> list[str]:
    return groups.get_column("group").head(GROUPS).to_list()


def _members(table: pl.DataFrame, pixels: NDArray[np.uint8], group: str) -> dict[str, Any]:
    rows = table.filter(pl.col("group") == group).sort("age", "path")
    shown = [
        {
            "picture": data_uri(pixels[row["index"]], SIDE),
            "age": row["age"],
            "gender": "" if row["gender"] is None else GENDERS[row["gender"]],
            "path": row["path"],
        }
        for row in rows.head(MEMBERS).iter_rows(named=True)
    ]
    return {"members": shown, "more": max(len(rows) - MEMBERS, 0)}


def _reject_examples(rejects: pl.DataFrame) -> Iterable[tuple[str, int, list[tuple[str, str]]]]:
    """Each reason, the most frequent first, with its count and some paths and details."""
    for reason, count in rejects.group_by("reason").len().sort("len", "reason", descending=[True, False]).rows():
        examples = rejects.filter(pl.col("reason") == reason).sort("path").head(EXAMPLES)
        yield reason, count, examples.select("path", "detail").rows()
