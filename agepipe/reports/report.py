"""One HTML file about an evaluation: opens from disk, asks nothing of the network, prints, light and dark."""

from collections.abc import Mapping
from typing import Any

import polars as pl
from markupsafe import Markup
from numpy.typing import NDArray

from agepipe import __version__
from agepipe.evaluation.compute import YEARS
from agepipe.evaluation.figures import figure, span
from agepipe.evaluation.mistakes import DOUBTS, surest_mistakes
from agepipe.evaluation.records import Evaluation
from agepipe.evaluation.result import Outcome
from agepipe.evaluation.slice_table import FIGURES
from agepipe.model.imaging import Image
from agepipe.model.lineage import LIMIT
from agepipe.reports import sentences
from agepipe.reports.inline_images import data_uri
from agepipe.reports.pages import template

TITLES = {
    "accuracy": "right range",
    "within_one": "within one range",
    "macro_recall": "recall, mean over ranges",
    "macro_precision": "precision, mean over ranges",
    "macro_f1": "F1, mean over ranges",
    "weighted_recall": "recall, weighted by rows",
    "weighted_precision": "precision, weighted by rows",
    "weighted_f1": "F1, weighted by rows",
    "mae": "age error, years",
    "loss": "loss, nats",
    "ece": "calibration error",
}
"""What each figure is called on the page, in the order shown."""
MOST_SLICES = 60
"""Slices that the page shows; the table beside it has all."""
SIDE, SMALL = 112, 64
"""Largest side of a mistake's and of a doubtful label's picture, px."""


def render(outcome: Outcome, drawings: Mapping[str, str], pictures: Mapping[int, Image]) -> str:
    """The page.

    Args:
        outcome: what was found.
        drawings: SVG by name, as `agepipe.reports.plots.draw` gives them; the only text that is not escaped.
        pictures: those that are shown, RGB, by their place in the pixel store.
    """
    return template("report.html.j2").render(
        o=outcome,
        s=sentences,
        drawings={name: Markup(svg) for name, svg in drawings.items()},
        titles=TITLES,
        years=YEARS,
        slices=_slices(outcome),
        few=outcome.slices.filter(~pl.col("enough")).head(MOST_SLICES).rows(named=True),
        more=_more(outcome.slices),
        mistakes=_mistakes(outcome, pictures),
        doubts=_doubts(outcome.doubtful, pictures),
        limit=LIMIT,
        version=__version__,
    )


def _slices(outcome: Outcome) -> list[dict[str, Any]]:
    """Slices that can be judged; `sides` says of each figure `worse` or `better` where its gap is beyond chance."""
    chance, table = 1 - outcome.settings.confidence, outcome.slices.filter("enough").head(MOST_SLICES)
    return [
        row
        | {
            "sides": {
                name: sentences.side(row[f"{name}_gap"], name) if row[f"{name}_p"] < chance else "" for name in FIGURES
            }
        }
        for row in table.iter_rows(named=True)
    ]


def _more(table: pl.DataFrame) -> int:
    """Slices that the page does not show."""
    return sum(max(0, len(part) - MOST_SLICES) for part in table.partition_by("enough"))


def _mistakes(outcome: Outcome, pictures: Mapping[int, Image]) -> list[dict[str, Any]]:
    judged, words, places = outcome.judged, outcome.card.ranges.words, surest_mistakes(outcome.judged)
    index, paths = outcome.table["index"], outcome.table["path"]
    said: NDArray[Any] = judged.predicted
    return [
        {
            "picture": data_uri(pictures[index[int(at)]], SIDE), "path": paths[int(at)], "age": int(judged.ages[at]),
            "true": words[judged.labels[at]], "said": words[said[at]], "sure": judged.confidence[at],
        }
        for at in places
    ]  # fmt: skip


def _doubts(doubtful: pl.DataFrame, pictures: Mapping[int, Image]) -> list[dict[str, Any]]:
    rows = doubtful.head(DOUBTS).iter_rows(named=True)
    return [row | {"picture": data_uri(pictures[row["index"]], SMALL)} for row in rows]


def said(evaluation: Evaluation) -> str:
    """The verdict of an evaluation, and its warning where there is one."""
    warning = f"**Warning:** {evaluation.warning}" if evaluation.warning else ""
    return " ".join(filter(None, [evaluation.verdict, warning]))


def markdown(evaluation: Evaluation) -> str:
    """The figures with their intervals as a Markdown table, and where the page is."""
    lines = [
        f"| {title} | {figure(evaluation.metrics[name], name)}{evaluation.doubt} | "
        f"{span(evaluation.intervals[name], name)} |"
        for name, title in TITLES.items()
    ]
    head = f"{said(evaluation)}\n\nResults on {evaluation.judged_on}. Report: `{evaluation.report}`"
    return "\n".join([head, "", "| figure | value | interval |", "|---|---|---|", *lines])
