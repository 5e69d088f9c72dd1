"""The model card: what a model is for and what not, how good it is, and for whom it is worse.

It goes with the version in the registry, as Markdown, and is made of the facts of the evaluation that the version was
registered with (Mitchell and others, "Model cards for model reporting", 2019).
"""

from typing import Any

import polars as pl

from agepipe import __version__
from agepipe.evaluation.result import Outcome
from agepipe.evaluation.slice_table import FIGURES
from agepipe.reports import sentences
from agepipe.reports.pages import template
from agepipe.reports.report import TITLES

WORST = 8
"""Slices that the card lists; the report has all."""


def model_card(outcome: Outcome) -> str:
    """The card as Markdown."""
    return template("model-card.md.j2").render(
        o=outcome,
        s=sentences,
        titles=TITLES,
        slices=_slices(outcome),
        learn=outcome.card.config.get("learn", {}),
        drawn=outcome.rows.name == "sample",
        version=__version__,
    )


def _slices(outcome: Outcome) -> list[dict[str, Any]]:
    """Those that are significantly worse in a figure come first, then the least accurate ones."""
    judged, chance = outcome.slices.filter(pl.col("enough")), 1 - outcome.settings.confidence
    worse = [sentences.behind(judged, name, chance) for name in FIGURES]
    return list(pl.concat([*worse, judged]).unique(maintain_order=True).head(WORST).iter_rows(named=True))
