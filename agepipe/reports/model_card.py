"""The model card: intended use, figures, limits and slices of a model.

It is the description of a registered version, in Markdown, made from the evaluation that the version was registered
with (Mitchell and others, "Model cards for model reporting", 2019).
"""

from typing import Any

import polars as pl

from agepipe import __version__
from agepipe.evaluation.result import Outcome
from agepipe.evaluation.slice_table import SLICE_FIGURES
from agepipe.reports import sentences
from agepipe.reports.pages import template
from agepipe.reports.report import TITLES

WORST = 8
"""Largest number of slices on the card."""


def model_card(outcome: Outcome) -> str:
    """Render the card as Markdown."""
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
    """The slices of the card: first those that are significantly worse in a figure, then the least accurate ones."""
    large, chance = outcome.slices.filter(pl.col("enough")), 1 - outcome.settings.confidence
    worse = [sentences.behind(large, name, chance) for name in SLICE_FIGURES]
    return list(pl.concat([*worse, large]).unique(maintain_order=True).head(WORST).iter_rows(named=True))
