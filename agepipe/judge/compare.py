"""Compare a candidate with the champion on the same rows, which neither has seen, and say whether it takes over."""

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from agepipe.config import EvaluateSettings, ReleaseSettings, Where
from agepipe.errors import DataError
from agepipe.judge.answers import answer, read_rows
from agepipe.judge.evaluate import check_model, judged_by, labelled
from agepipe.judge.intervals import Difference, paired
from agepipe.judge.lineage import overlap
from agepipe.progress import Progress, silent
from agepipe.records import Model, Rows
from agepipe.serve.bundle import Card, read_lineage

AGES_ONLY = frozenset({"mae"})
"""Figures that mean the same whatever the ranges are."""


class Comparison(BaseModel):
    """What a promotion is decided by; the figures are None when nothing could be compared."""

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
    """Rows left out because either has seen them, or has no range for their age."""
    promote: bool
    reason: str
    """One plain sentence."""


def compare(
    candidate: Model,
    champion: Model,
    rows: Rows,
    release: ReleaseSettings,
    evaluate: EvaluateSettings,
    where: Where,
    progress: Progress = silent,
) -> Comparison:
    """Judge both on the same rows, less any that either has seen; nothing is raised for a comparison that fails.

    Raises:
        ModelError: a bundle cannot be used.
        DataError: the rows cannot be used.
    """
    cards = (check_model(candidate), check_model(champion))
    table = read_rows(rows)
    kept = _unseen(table, (candidate, champion), cards)
    excluded = len(table) - len(kept)
    if obstacle := _obstacle(candidate, cards, len(kept), excluded, release):
        return Comparison(metric=release.metric, rows=len(kept), excluded=excluded, promote=False, reason=obstacle)
    first, second = (
        judged_by(labelled(card, kept)[0], answer(model, rows, kept, where, progress))
        for model, card in zip((candidate, champion), cards, strict=True)
    )
    found = paired(
        kept["group"].to_numpy(), first, second, release.metric,
        draws=evaluate.draws, confidence=evaluate.confidence, seed=evaluate.seed,
    )  # fmt: skip
    return _decided(found, release, evaluate, len(kept), excluded)


def _unseen(table: pl.DataFrame, models: tuple[Model, Model], cards: tuple[Card, Card]) -> pl.DataFrame:
    """The rows that neither model has seen and both have a range for."""
    keep = np.ones(len(table), dtype=bool)
    for model, card in zip(models, cards, strict=True):
        keep &= ~overlap(read_lineage(model.folder), table).seen
        keep &= card.ranges.classes(table["age"].cast(pl.Int64).to_numpy()) >= 0
    return table.filter(pl.Series(keep))


def _obstacle(candidate: Model, cards: tuple[Card, Card], rows: int, excluded: int, release: ReleaseSettings) -> str:
    """Why the two cannot be compared; empty when they can."""
    if "unknown" in (candidate.lineage, cards[0].lineage):
        return "Not promoted: nobody knows what the candidate was trained on, so it may have seen the test rows."
    if rows < max(release.min_rows, 1):
        return (
            f"Not promoted: only {rows} test rows are left that neither model has seen ({excluded} were left out), "
            f"and release.min_rows asks for {release.min_rows}."
        )
    if cards[0].ranges != cards[1].ranges and release.metric not in AGES_ONLY:
        return (
            f"Not promoted: the candidate has {len(cards[0].ranges)} ranges and the champion other "
            f"{len(cards[1].ranges)}, so {release.metric} does not compare them; set release.metric to mae."
        )
    return ""


def _decided(
    found: Difference, release: ReleaseSettings, settings: EvaluateSettings, rows: int, excluded: int
) -> Comparison:
    promote = found.share_better >= release.confidence
    if not np.isfinite(found.difference):
        raise DataError(f"{release.metric}: the difference is {found.difference}; the predictions are broken.")
    return Comparison(
        metric=release.metric, candidate=found.first, champion=found.second, difference=found.difference,
        low=found.low, high=found.high, share_better=found.share_better, rows=rows, excluded=excluded,
        promote=promote, reason=_reason(found, promote, release, settings, rows),
    )  # fmt: skip


def _reason(found: Difference, promote: bool, release: ReleaseSettings, settings: EvaluateSettings, rows: int) -> str:
    figures = (
        f"{release.metric} {found.first:.4g} against the champion's {found.second:.4g} on the same {rows} rows, a "
        f"difference of {found.difference:+.3g} ({settings.confidence:.0%} interval {found.low:+.3g} to "
        f"{found.high:+.3g}), better in {found.share_better:.1%} of the draws"
    )
    if promote:
        return f"Promoted: {figures}; {release.confidence:.0%} are needed."
    if found.low <= 0 <= found.high:
        return f"Not promoted: the two cannot be told apart: {figures}; {release.confidence:.0%} are needed."
    if found.share_better < 0.5:
        return f"Not promoted: the champion is better: {figures}; {release.confidence:.0%} are needed."
    return f"Not promoted: probably better, but not surely enough: {figures}; {release.confidence:.0%} are needed."
