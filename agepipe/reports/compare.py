"""Compare models on one set of rows that none of them has seen, each with the first, and write down what was found."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
from pydantic import BaseModel, ConfigDict

from agepipe.config.runtime import Where
from agepipe.config.stages import EvaluateSettings
from agepipe.core.artifacts import read_manifest, whole, write_manifest
from agepipe.core.errors import ConfigError, DataError
from agepipe.core.progress import Progress, silent
from agepipe.core.record import digest_of
from agepipe.data.records import Rows
from agepipe.evaluation.comparison import Versus, versus
from agepipe.evaluation.evaluate import check_model, labelled
from agepipe.evaluation.gate import judged_on, unseen
from agepipe.evaluation.predictions import read_rows
from agepipe.evaluation.records import Compared
from agepipe.model.bundle import Card
from agepipe.model.records import Model

VERSION = 2
"""Raised when the same inputs would give another folder."""


class Contrast(BaseModel):
    """What the page shows and `comparison.json` holds."""

    model_config = ConfigDict(frozen=True)

    digest: str
    titles: tuple[str, ...]
    """What the models are called, the first first."""
    models: tuple[str, ...]
    """Their digests."""
    name: str
    """The rows' name."""
    rows: str
    """Digest of the rows."""
    count: int
    """Rows compared."""
    photographs: int
    """Different photographs among them, copies counted once."""
    excluded: int
    """Rows left out because one of the models has seen them or has no range for their age."""
    settings: EvaluateSettings
    notes: tuple[str, ...]
    against: tuple[Versus, ...]
    """The second model against the first, the third against the first, and so on."""


def contrast(
    models: Sequence[Model],
    titles: Sequence[str],
    rows: Rows,
    settings: EvaluateSettings,
    where: Where,
    progress: Progress = silent,
) -> Compared:
    """Compare models, or find the finished comparison of the same ones on the same rows.

    Args:
        models: two or more; each is compared with the first.
        titles: what a reader calls them.
        rows: the rows, of which those that any of the models has seen are left out.
        settings: draws, confidence and seed.
        where: workspace, and how many parts to predict at a time.
        progress: told while rows are predicted.

    Raises:
        ConfigError: there are not two different models.
        ModelError: a bundle cannot be used.
        DataError: the rows cannot be used, or none is left.
    """
    check_different(models, titles)
    key = digest_of("comparison", VERSION, tuple(models), tuple(titles), rows, settings)
    folder = where.workspace / "comparisons" / f"{rows.name or 'rows'}-{key[:10]}"
    if read_manifest(folder) is None:
        found = _found(key, models, titles, rows, settings, where, progress)
        with whole(folder) as draft:
            _write(draft, found)
    return Compared(digest=key, folder=folder)


def read(record: Compared) -> Contrast:
    """What a comparison found.

    Raises:
        DataError: its file cannot be read.
    """
    try:
        return Contrast.model_validate_json(record.facts.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{record.facts}: cannot be read; remove the folder to have it compared anew.") from error


def _found(
    key: str,
    models: Sequence[Model],
    titles: Sequence[str],
    rows: Rows,
    settings: EvaluateSettings,
    where: Where,
    progress: Progress,
) -> Contrast:
    cards = [check_model(model) for model in models]
    table = read_rows(rows)
    kept = unseen(table, models, cards)
    if kept.is_empty():
        raise DataError(
            f"rows: of {len(table)} rows none is left that no model has seen and all have a range for; name other "
            "photographs with --data."
        )
    judged = [judged_on(model, card, rows, kept, where, progress) for model, card in zip(models, cards, strict=True)]
    first = labelled(cards[0], kept)[0]
    names = cards[0].ranges.words
    return Contrast(
        digest=key, titles=tuple(titles), models=tuple(model.digest for model in models), name=rows.name,
        rows=rows.digest, count=len(kept), photographs=kept["group"].n_unique(), excluded=len(table) - len(kept),
        settings=settings, notes=tuple(_notes(models, cards, titles)),
        against=tuple(
            versus(first, one, judged[0], names, settings, same_ranges=card.ranges == cards[0].ranges)
            for one, card in zip(judged[1:], cards[1:], strict=True)
        ),
    )  # fmt: skip


def _notes(models: Sequence[Model], cards: Sequence[Card], titles: Sequence[str]) -> list[str]:
    unknown = [t for t, m, c in zip(titles, models, cards, strict=True) if "unknown" in (m.lineage, c.lineage)]
    other = [t for t, card in zip(titles, cards, strict=True) if card.ranges != cards[0].ranges]
    notes = [
        f"What {title} was trained on is unknown. It may have seen these photographs, and then its figures are too "
        "good."
        for title in unknown
    ]
    return notes + [f"{title} has other ranges than {titles[0]}, so only the age error is compared." for title in other]


def _write(folder: Path, found: Contrast) -> None:
    from agepipe.reports.comparison import render  # only where something is written

    (folder / "comparison.json").write_text(found.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (folder / "comparison.html").write_text(render(found), encoding="utf-8")
    _slices(found).write_csv(folder / "slices.csv")
    inputs = {"rows": found.rows} | {f"model {at + 1}": digest for at, digest in enumerate(found.models)}
    write_manifest(folder, "compare", found.settings, inputs, {"digest": found.digest, "excluded": found.excluded})


def _slices(found: Contrast) -> pl.DataFrame:
    """Every slice of every comparison in each figure; ranges have no dash that a spreadsheet would take for a date."""
    lines = [
        {"model": title, "kind": one.kind, "slice": one.name, "rows": one.rows,
         "photographs": one.photographs, "figure": name, **change._asdict()}
        for title, other in zip(found.titles[1:], found.against, strict=True)
        for one in other.slices
        for name, change in one.changes.items()
    ]  # fmt: skip
    return pl.DataFrame(lines, infer_schema_length=None)


def check_different(models: Sequence[Model], titles: Sequence[str]) -> None:
    """Refuse a comparison of a model with itself.

    Raises:
        ConfigError: there are not two different models.
    """
    if len({model.digest for model in models}) < max(len(models), 2):
        raise ConfigError(f"models: {', '.join(titles)} are not different ones; name at least two that differ.")
