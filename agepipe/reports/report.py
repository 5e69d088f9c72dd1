"""The report of an evaluation: one HTML file without network access, for light and dark screens and for print."""

from collections.abc import Mapping
from typing import Any

import polars as pl
from markupsafe import Markup
from numpy.typing import NDArray

from agepipe import __version__
from agepipe.evaluation.compute import YEARS
from agepipe.evaluation.figures import figure, span
from agepipe.evaluation.mistakes import DOUBTS, confident_mistakes
from agepipe.evaluation.records import Evaluation
from agepipe.evaluation.result import Outcome
from agepipe.evaluation.slice_table import SLICE_FIGURES
from agepipe.model.imaging import Image
from agepipe.model.lineage import LIMIT
from agepipe.reports import sentences
from agepipe.reports.inline_images import data_uri
from agepipe.reports.pages import template

TITLES = {
    "accuracy": "accuracy",
    "within_one": "within one range",
    "macro_recall": "macro recall",
    "macro_precision": "macro precision",
    "macro_f1": "macro F1",
    "weighted_recall": "weighted recall",
    "weighted_precision": "weighted precision",
    "weighted_f1": "weighted F1",
    "mae": "age error, years",
    "loss": "loss, nats",
    "ece": "calibration error",
}
"""Titles of the figures on the page, in this order."""
MAX_SLICES = 60
"""Largest number of slices on the page; `slices.csv` has all."""
SIDE, SMALL = 112, 64
"""Largest side of the pictures of mistakes and of doubtful labels, px."""


def render(outcome: Outcome, drawings: Mapping[str, str], pictures: Mapping[int, Image]) -> str:
    """Render the page as HTML.

    Args:
        outcome: the results.
        drawings: SVG of the plots by name, from `agepipe.reports.plots.draw`; the only text that is not escaped.
        pictures: the pictures to embed, uint8 RGB, by their index in the pixel store.
    """
    return template("report.html.j2").render(
        o=outcome,
        s=sentences,
        drawings={name: Markup(svg) for name, svg in drawings.items()},
        titles=TITLES,
        years=YEARS,
        slices=_slices(outcome),
        few=outcome.slices.filter(~pl.col("enough")).head(MAX_SLICES).rows(named=True),
        more=_more(outcome.slices),
        mistakes=_mistakes(outcome, pictures),
        doubts=_doubts(outcome.doubtful, pictures),
        limit=LIMIT,
        version=__version__,
    )


def _slices(outcome: Outcome) -> list[dict[str, Any]]:
    """The slices that are large enough; `sides` is `worse` or `better` for each figure with a significant gap."""
    chance, table = 1 - outcome.settings.confidence, outcome.slices.filter("enough").head(MAX_SLICES)
    return [
        row
        | {
            "sides": {
                name: sentences.side(row[f"{name}_gap"], name) if row[f"{name}_p"] < chance else ""
                for name in SLICE_FIGURES
            }
        }
        for row in table.iter_rows(named=True)
    ]


def _more(table: pl.DataFrame) -> int:
    """Number of slices that are not on the page."""
    return sum(max(0, len(part) - MAX_SLICES) for part in table.partition_by("enough"))


def _mistakes(outcome: Outcome, pictures: Mapping[int, Image]) -> list[dict[str, Any]]:
    predictions, words = outcome.predictions, outcome.card.ranges.words
    index, paths = outcome.table["index"], outcome.table["path"]
    predicted: NDArray[Any] = predictions.predicted
    return [
        {
            "picture": data_uri(pictures[index[int(at)]], SIDE), "path": paths[int(at)],
            "age": int(predictions.ages[at]), "true": words[predictions.labels[at]],
            "predicted": words[predicted[at]], "confidence": predictions.confidence[at],
        }
        for at in confident_mistakes(predictions)
    ]  # fmt: skip


def _doubts(doubtful: pl.DataFrame, pictures: Mapping[int, Image]) -> list[dict[str, Any]]:
    rows = doubtful.head(DOUBTS).iter_rows(named=True)
    return [row | {"picture": data_uri(pictures[row["index"]], SMALL)} for row in rows]


def verdict(evaluation: Evaluation) -> str:
    """The verdict of an evaluation, followed by its warning if there is one."""
    warning = f"**Warning:** {evaluation.warning}" if evaluation.warning else ""
    return " ".join(filter(None, [evaluation.verdict, warning]))


def markdown(evaluation: Evaluation) -> str:
    """Markdown with the verdict, a table of the figures and their intervals, and the path of the page."""
    lines = [
        f"| {title} | {figure(evaluation.metrics[name], name)}{evaluation.doubt} | "
        f"{span(evaluation.intervals[name], name)} |"
        for name, title in TITLES.items()
    ]
    head = f"{verdict(evaluation)}\n\nResults on {evaluation.rows_in_words}. Report: `{evaluation.report}`"
    return "\n".join([head, "", "| figure | value | interval |", "|---|---|---|", *lines])
