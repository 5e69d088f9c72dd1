"""Compare each of several models with the first one on rows that none of them has seen, and write the result.

The folder of a comparison contains the results as JSON, a table of slices, and an HTML file that loads no other file.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import polars as pl
from pydantic import BaseModel, ConfigDict

from agepipe import __version__
from agepipe.config.runtime import Runtime
from agepipe.config.stages import EvaluateSettings
from agepipe.core.errors import ConfigError, DataError
from agepipe.core.progress import Progress, silent
from agepipe.core.record import digest_of
from agepipe.data.records import Rows
from agepipe.evaluation.comparison import Difference, Exact, PairedDifferences, SliceChange, compare_pair, significance
from agepipe.evaluation.evaluate import check_model, labelled, predict_labelled, unseen
from agepipe.evaluation.figures import UNITS, WORDS, figure, gap, gap_span, listed, percent
from agepipe.evaluation.predictions import read_rows
from agepipe.evaluation.records import Compared
from agepipe.model.bundle import Card
from agepipe.model.records import Model
from agepipe.reports.pages import template
from agepipe.reports.report import TITLES

VERSION = 4
"""Raise it when the same inputs give another folder; part of the digest."""
MIN_P = 0.001
"""Smaller p-values are written as `p < 0.001`."""
MAX_NAMED = 6
"""Largest number of slices that a sentence lists by name."""


class ModelComparison(BaseModel):
    """The content of `comparison.json` and of the page."""

    model_config = ConfigDict(frozen=True)

    digest: str
    titles: tuple[str, ...]
    """Titles of the models; each is compared with the first."""
    models: tuple[str, ...]
    """Digests of the models."""
    name: str
    """Name of the rows."""
    rows: str
    """Digest of the rows."""
    count: int
    """Number of rows compared."""
    photographs: int
    """Number of different photographs among them; copies count once."""
    excluded: int
    """Rows that were left out because a model has seen them or has no range for their age."""
    settings: EvaluateSettings
    notes: tuple[str, ...]
    """Notes for the reader, a sentence each."""
    against: tuple[PairedDifferences, ...]
    """The comparison of the second model with the first, of the third with the first, and so on."""


def compare(
    models: Sequence[Model],
    titles: Sequence[str],
    rows: Rows,
    settings: EvaluateSettings,
    folder: Path,
    runtime: Runtime,
    progress: Progress = silent,
) -> Compared:
    """Compare models on the same rows, and write the results.

    Args:
        models: two or more models; each is compared with the first.
        titles: their titles on the page.
        rows: the rows; those that a model has seen are left out.
        settings: draws, confidence and seed.
        folder: an empty folder for the page, the table and the results.
        runtime: workspace of the predictions, and number of workers.
        progress: called while rows are predicted.

    Raises:
        ConfigError: two of the models are the same.
        ModelError: a bundle cannot be used.
        DataError: the rows cannot be used, or none is left.
    """
    check_different(models, titles)
    key = digest_of("comparison", VERSION, tuple(models), tuple(titles), rows, settings)
    _write(folder, _found(key, models, titles, rows, settings, runtime, progress))
    return Compared(digest=key, folder=folder)


def read(record: Compared) -> ModelComparison:
    """Read the results of a comparison.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return ModelComparison.model_validate_json(record.facts.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{record.facts}: cannot be read; remove the folder to compare the models again.") from error


def _found(
    key: str,
    models: Sequence[Model],
    titles: Sequence[str],
    rows: Rows,
    settings: EvaluateSettings,
    runtime: Runtime,
    progress: Progress,
) -> ModelComparison:
    cards = [check_model(model) for model in models]
    table = read_rows(rows)
    kept = unseen(table, models, cards)
    if kept.is_empty():
        raise DataError(
            f"rows: of {len(table)} rows none is left that no model has seen and all have a range for; name other "
            "photographs with --data."
        )
    predictions = [
        predict_labelled(model, card, rows, kept, runtime, progress) for model, card in zip(models, cards, strict=True)
    ]
    first = labelled(cards[0], kept)[0]
    names = cards[0].ranges.words
    return ModelComparison(
        digest=key, titles=tuple(titles), models=tuple(model.digest for model in models), name=rows.name,
        rows=rows.digest, count=len(kept), photographs=kept["group"].n_unique(), excluded=len(table) - len(kept),
        settings=settings, notes=tuple(_notes(models, cards, titles)),
        against=tuple(
            compare_pair(first, one, predictions[0], names, settings, same_ranges=card.ranges == cards[0].ranges)
            for one, card in zip(predictions[1:], cards[1:], strict=True)
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


def _write(folder: Path, found: ModelComparison) -> None:
    (folder / "comparison.json").write_text(found.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (folder / "comparison.html").write_text(render(found), encoding="utf-8")
    _slices(found).write_csv(folder / "slices.csv")


def _slices(found: ModelComparison) -> pl.DataFrame:
    """Each slice of each comparison in each figure; ranges are words, because spreadsheets read `3-5` as a date."""
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
        ConfigError: two of the models are the same.
    """
    if len({model.digest for model in models}) < max(len(models), 2):
        raise ConfigError(f"models: {', '.join(titles)} are not all different models; name at least two that are.")


def render(found: ModelComparison) -> str:
    """Render the page as HTML."""
    return template("comparison.html.j2").render(
        c=found, titles=TITLES, verdicts=verdicts(found), excluded=excluded(found), by_slice=by_slice, exact=exact,
        ordered=ordered, significance=partial(significant, found), reach=reach, enough=found.settings.min_slice,
        version=__version__,
    )  # fmt: skip


def verdicts(found: ModelComparison) -> list[str]:
    """The result of the comparison with the first model, a sentence for each other model."""
    pairs = zip(found.titles[1:], found.against, strict=True)
    return [verdict(title, found.titles[0], one, found) for title, one in pairs]


def verdict(title: str, first: str, one: PairedDifferences, found: ModelComparison) -> str:
    """The figures in which a model is significantly better or worse than the first, in a sentence."""
    on = f"on the same {found.count:,} photographs"
    if few(found):
        return (
            f"{found.photographs:,} different photographs are too few to compare {title} with {first}. At least "
            f"{found.settings.min_slice} are needed (evaluate.min_slice)."
        )
    better, worse = ([n for n, d in one.figures.items() if significance(d, n) == sign] for sign in (1, -1))
    sure = f"{percent(found.settings.confidence, 'g')} confidence for all figures together"
    if not better and not worse:
        return f"No significant difference between {title} and {first} {on} ({sure})."
    parts = [f"{word} in {_changes(names, one)}" for word, names in (("better", better), ("worse", worse)) if names]
    rest = "" if len(better) + len(worse) == len(one.figures) else "; no significant difference in the other figures"
    return f"Against {first}, {on}, {title} is {' and '.join(parts)}{rest} ({sure})."


def few(found: ModelComparison) -> bool:
    """Whether there are too few photographs for a comparison."""
    return found.photographs < found.settings.min_slice


def significant(found: ModelComparison, change: Difference, name: str) -> int:
    """1 if the model is significantly better than the first, -1 if it is significantly worse, else 0."""
    return 0 if few(found) else significance(change, name)


def _changes(names: Sequence[str], one: PairedDifferences) -> str:
    return listed([f"{WORDS[name]} ({gap(one.figures[name].difference, name)} {UNITS[name]})" for name in names])


def by_slice(title: str, one: PairedDifferences) -> str:
    """The slices on which the two models differ significantly, in a sentence."""
    large = [part for part in one.slices if part.changes]
    if not large:
        return "No slice is large enough to compare."
    signs = [{significance(d, name) for name, d in part.changes.items()} for part in large]
    parts = {
        word: [part for part, found in zip(large, signs, strict=True) if sign in found]
        for word, sign in (("worse", -1), ("better", 1))
    }
    results = [f"significantly {word} in {_named(some, large)}" for word, some in parts.items() if some]
    if not results:
        return f"No significant difference in any of {len(large)} slices. The intervals of all slices are simultaneous."
    none = "" if parts["worse"] else "; significantly worse in none"
    return f"{title} is {'; '.join(results)}{none}. The intervals of all slices are simultaneous."


def _named(some: list[SliceChange], large: list[SliceChange]) -> str:
    """Some of the slices in words: their names if they are few, else the names of the others if those are few."""
    names, others = ([f"{part.kind} {part.name}" for part in large if (part in some) is inside]
                     for inside in (True, False))  # fmt: skip
    count = f"{len(names)} of {len(large)} slices"
    if len(names) <= MAX_NAMED:
        return f"{count} ({', '.join(names)})"
    return f"{count} (all but {', '.join(others)})" if 0 < len(others) <= MAX_NAMED else count


def exact(title: str, first: str, test: Exact) -> str:
    """McNemar's test in a sentence."""
    counts = (
        f"Both pick the right range for {test.both:,} of {test.photographs:,} photographs, only {title} for "
        f"{test.first_only:,}, only {first} for {test.second_only:,}"
    )
    if test.first_only == test.second_only:
        return f"{counts}: an even split (of several copies, only the first counts)."
    p = f"p < {MIN_P:g}" if test.p < MIN_P else f"p = {test.p:.2g}"
    return (
        f"{counts}. If the two were equally accurate, so uneven a split would be chance with {p} (McNemar's exact "
        "test; of several copies, only the first counts)."
    )


def ordered(one: PairedDifferences) -> list[SliceChange]:
    """The slices by their change in age error, the worst first and those that are too small last."""
    return sorted(one.slices, key=lambda part: -part.changes["mae"].difference if part.changes else float("inf"))


def reach(differences: Sequence[Difference]) -> float:
    """The largest absolute bound of the intervals, for a common scale of their bars."""
    return max((max(abs(one.low), abs(one.high)) for one in differences), default=1.0) or 1.0


def excluded(found: ModelComparison) -> str:
    """The number of rows that were left out, in a sentence; empty if there are none."""
    if not found.excluded:
        return ""
    were = "photograph was" if found.excluded == 1 else "photographs were"
    return f"{found.excluded:,} {were} left out: one of the models has seen the photograph or has no range for its age."


def markdown(found: ModelComparison, page: str) -> str:
    """Markdown with the sentences, a table of the figures, and the path of the page."""
    lines = [*verdicts(found), "", *filter(None, [excluded(found)]), f"Page: `{page}`", ""]
    for title, one in zip(found.titles[1:], found.against, strict=True):
        lines += [f"| figure | {found.titles[0]} | {title} | difference | interval |", "|---|---|---|---|---|"]
        lines += [
            f"| {TITLES[n]} | {figure(d.second, n)} | {figure(d.first, n)} | {gap(d.difference, n)} {UNITS[n]} | "
            f"{gap_span((d.low, d.high), n)} |"
            for n, d in one.figures.items()
        ]
        lines.append("")
    return "\n".join(lines)
