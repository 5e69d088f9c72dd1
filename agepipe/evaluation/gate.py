"""Compare a candidate with the champion on rows that neither has seen, and decide whether it takes over.

It takes over if it is better in `release.metric` in `release.confidence` of the draws, and no watched slice gets worse.
A slice gets worse if its mean absolute error grows by more than `release.margin` years by the estimate, and grows at
all in `release.confidence` of the draws. The error in years is used because it is a mean, whose bootstrap draws behave
well, and because it does not depend on the ranges.

The estimate is compared with the margin, not an end of its interval. Requiring the whole interval below the margin
would refuse nearly every candidate on a few hundred rows. Refusing only if the whole interval is above the margin would
accept candidates that are very probably harmful. A refused candidate can still be promoted by hand. The growth of the
error must be as certain as the gain; otherwise chance alone would refuse candidates because of small slices. Slices
with fewer photographs than `evaluate.min_slice` are ignored.
"""

import numpy as np
from pydantic import BaseModel, ConfigDict

from agepipe.config.runtime import Runtime
from agepipe.config.stages import EvaluateSettings, ReleaseSettings
from agepipe.core.errors import DataError
from agepipe.core.progress import Progress, silent
from agepipe.data.records import Rows
from agepipe.evaluation.comparison import AGES_ONLY, Difference, SliceChange, paired_differences, significance
from agepipe.evaluation.evaluate import check_model, labelled, predict_labelled, unseen
from agepipe.evaluation.figures import WORDS, change, figure, gap, percent
from agepipe.evaluation.predictions import read_rows
from agepipe.evaluation.slices import slices
from agepipe.model.bundle import Card
from agepipe.model.records import Model


class Comparison(BaseModel):
    """The comparison that decides a promotion; the figures are None if the two could not be compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    candidate: float | None = None
    champion: float | None = None
    difference: float | None = None
    """Candidate minus champion."""
    low: float | None = None
    high: float | None = None
    share_better: float | None = None
    """Share of the bootstrap draws in which the candidate is better."""
    rows: int
    """Rows compared."""
    excluded: int
    """Rows left out because one of the two has seen them or has no range for their age."""
    promote: bool
    reason: str
    """One plain sentence."""
    slices: tuple[SliceChange, ...] = ()
    """Changes on the watched slices, candidate minus champion."""


def compare(
    candidate: Model,
    champion: Model,
    rows: Rows,
    release: ReleaseSettings,
    evaluate: EvaluateSettings,
    runtime: Runtime,
    progress: Progress = silent,
) -> Comparison:
    """Compare both on the same rows, without those that either has seen; an impossible comparison raises no error.

    Raises:
        ModelError: a bundle cannot be used.
        DataError: the rows cannot be used.
    """
    cards = (check_model(candidate), check_model(champion))
    table = read_rows(rows)
    kept = unseen(table, (candidate, champion), cards)
    excluded = len(table) - len(kept)
    if obstacle := _obstacle(candidate, cards, len(kept), excluded, release):
        return Comparison(metric=release.metric, rows=len(kept), excluded=excluded, promote=False, reason=obstacle)
    first, second = (
        predict_labelled(model, card, rows, kept, runtime, progress)
        for model, card in zip((candidate, champion), cards, strict=True)
    )
    table = labelled(cards[0], kept)[0]
    watched = [part for part in slices(table, cards[0].ranges.words) if part.kind in release.watch]
    found = paired_differences(
        table["group"].to_numpy(), first, second, evaluate,
        figures=(release.metric,), parts=watched, slice_figures=AGES_ONLY,
    )  # fmt: skip
    changes = tuple(one for one in found.slices if one.changes)
    return decided(found.figures[release.metric], changes, release, evaluate, len(kept), excluded)


def _obstacle(candidate: Model, cards: tuple[Card, Card], rows: int, excluded: int, release: ReleaseSettings) -> str:
    """Why the two cannot be compared; empty when they can."""
    if "unknown" in (candidate.lineage, cards[0].lineage):
        return "Not promoted: what the candidate was trained on is unknown, so it may have seen the test photographs."
    if rows < max(release.min_rows, 1):
        return (
            f"Not promoted: only {rows:,} photographs are left that neither model has seen ({excluded:,} were left "
            f"out), and release.min_rows asks for {release.min_rows:,}."
        )
    if cards[0].ranges != cards[1].ranges and release.metric not in AGES_ONLY:
        return (
            f"Not promoted: the candidate has {len(cards[0].ranges)} ranges and the champion {len(cards[1].ranges)} "
            f"others, so {release.metric} does not compare them; set release.metric to mae."
        )
    return ""


def decided(
    found: Difference,
    watched: tuple[SliceChange, ...],
    release: ReleaseSettings,
    settings: EvaluateSettings,
    rows: int,
    excluded: int,
) -> Comparison:
    """Decide by the difference in the deciding figure and by the watched slices.

    Raises:
        DataError: the difference is not a number.
    """
    paying = [one for one in watched if pays(one, release)]
    promote = found.share_better >= release.confidence and not paying
    if not np.isfinite(found.difference):
        raise DataError(f"{release.metric}: the difference is {found.difference}; the predictions are broken.")
    return Comparison(
        metric=release.metric, candidate=found.first, champion=found.second, difference=found.difference,
        low=found.low, high=found.high, share_better=found.share_better, rows=rows, excluded=excluded,
        promote=promote, reason=_reason(found, paying, release, settings, rows, excluded), slices=watched,
    )  # fmt: skip


def pays(one: SliceChange, release: ReleaseSettings) -> bool:
    """Whether a watched slice forbids the promotion; see the module's docstring."""
    cost = one.changes["mae"]
    return cost.difference > release.margin and 1 - cost.share_better >= release.confidence


def _reason(
    found: Difference,
    paying: list[SliceChange],
    release: ReleaseSettings,
    settings: EvaluateSettings,
    rows: int,
    excluded: int,
) -> str:
    name, left_out = release.metric, f", {excluded:,} left out" if excluded else ""
    figures = (
        f"{WORDS[name]} {figure(found.first, name)}, champion {figure(found.second, name)} "
        f"({change(found, name, settings.confidence)}; {rows:,} photographs{left_out})"
    )
    if found.share_better >= release.confidence:
        if not paying:
            return f"Promoted: {figures}."
        worst = max(paying, key=lambda one: one.changes["mae"].difference)
        cost = worst.changes["mae"]
        return (
            f"Not promoted: {worst.kind} {worst.name} gets worse, by {gap(cost.difference, 'mae')} years to an age "
            f"error of {cost.first:.2f} ({worst.rows:,} photographs; worse in {percent(1 - cost.share_better)} of the "
            f"draws); release.margin allows {release.margin:g}. Better over all: {figures}."
        )
    if significance(found, name) < 0:
        return f"Not promoted: the champion is better: {figures}."
    short = "better, but not with enough confidence" if significance(found, name) > 0 else "no significant difference"
    return (
        f"Not promoted: {short}: {figures}; better in {percent(found.share_better)} of the draws, "
        f"{percent(release.confidence, 'g')} needed."
    )
