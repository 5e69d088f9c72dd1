"""Judge a model on rows that it has not seen, and write down everything that was found.

The order matters: first what the model has seen is checked, then it predicts, then it is judged. The figures are those
of the exported file that serves.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import polars as pl

from agepipe.config import EvaluateSettings, Where
from agepipe.errors import DataError, ModelError
from agepipe.judge.answers import Answers, answer, read_rows
from agepipe.judge.lineage import Overlap, overlap, refuse
from agepipe.judge.metrics import Judged, checked
from agepipe.judge.outcome import Outcome, numbers
from agepipe.judge.plots import draw
from agepipe.judge.report import render
from agepipe.progress import Progress, silent
from agepipe.records import Evaluation, Model, Rows, digest_of
from agepipe.serve.bundle import Card, digest, read_card, read_curves, read_lineage

VERSION = 1
"""Raised when the same inputs would give another folder."""


def evaluate(
    model: Model,
    rows: Rows,
    settings: EvaluateSettings,
    where: Where,
    *,
    exclude_seen: bool = False,
    progress: Progress = silent,
) -> Evaluation:
    """Judge a model on rows; a finished evaluation of the same model, rows and settings is found again.

    Args:
        model: the bundle.
        rows: rows that the model has not seen.
        settings: draws, confidence and seed of the intervals.
        where: workspace, and how many parts to predict at a time.
        exclude_seen: judge on the rest where the model has seen some rows, and say so.
        progress: told while rows are predicted.

    Raises:
        LeakageError: the model has seen some of the rows, and they are not to be excluded.
        ModelError: the bundle cannot be used.
        DataError: the rows cannot be used, or none is left.
    """
    card = check_model(model)
    table = read_rows(rows)
    lineage = read_lineage(model.folder)
    found = overlap(lineage, table)
    if not exclude_seen:
        refuse(found, f"model {model.digest[:10]}")
    key = digest_of("evaluation", VERSION, model, rows, settings, exclude_seen)
    folder = where.workspace / "evaluations" / f"{rows.name or 'rows'}-{key[:10]}"
    if not (folder / "metrics.json").exists():
        kept, outside = labelled(card, table.filter(~pl.Series(found.seen)))
        outcome = _outcome(model, card, rows, settings, kept, lineage, found, outside, where, progress)
        _write(folder, key, outcome, exclude_seen)
    return _record(folder)


def check_model(model: Model) -> Card:
    """The card of a bundle that is still what its record says.

    Raises:
        ModelError: a file is missing or was changed.
    """
    if (found := digest(model.folder)) != model.digest:
        raise ModelError(
            f"{model.folder}: the network and its card have the digest {found[:10]}, but the record says "
            f"{model.digest[:10]}; a file was changed, so export the model again."
        )
    return read_card(model.folder)


def labelled(card: Card, table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The rows whose age has a range of the model's, `label` in the model's class order, and how many have none.

    Raises:
        DataError: none is left.
    """
    kept = table.with_columns(card.ranges.expression().alias("label")).drop_nulls("label")
    if kept.is_empty():
        raise DataError(
            f"rows: of {len(table)} rows that the model has not seen none has an age between {card.ranges.youngest} "
            f"and {card.ranges.oldest or 'any'}; give rows that it can be judged on."
        )
    return kept, len(table) - len(kept)


def judged_by(table: pl.DataFrame, answers: Answers) -> Judged:
    """What is known and what was said about labelled rows, checked."""
    probabilities, years = answers.prediction
    return checked(table["label"].to_numpy(), probabilities, table["age"].to_numpy(), years)


def _outcome(
    model: Model,
    card: Card,
    rows: Rows,
    settings: EvaluateSettings,
    table: pl.DataFrame,
    lineage: pl.DataFrame,
    found: Overlap,
    outside: int,
    where: Where,
    progress: Progress,
) -> Outcome:
    answers = answer(model, rows, table, where, progress)
    judged = judged_by(table, answers)
    return Outcome(
        model=model,
        card=card,
        rows=rows,
        settings=settings,
        table=table,
        judged=judged,
        curves=read_curves(model.folder),
        lineage=lineage,
        overlap=found,
        excluded=found.count,
        outside=outside,
        seconds=answers.seconds,
        notes=tuple(_notes(card, rows)),
        **numbers(judged, table["group"], card.ranges.names, settings),
    )


def _notes(card: Card, rows: Rows) -> list[str]:
    notes = []
    if rows.size != card.size:
        notes.append(f"The pictures were stored at {rows.size} px and brought to the model's {card.size} px.")
    if rows.ranges != card.ranges:
        notes.append(
            f"The data is labelled with {len(rows.ranges)} other ranges; the ages were mapped to the model's own "
            f"{len(card.ranges)}."
        )
    return notes


def _write(folder: Path, key: str, outcome: Outcome, exclude_seen: bool) -> None:
    """Fill a folder under a temporary name and rename it."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "plots").mkdir(parents=True)
    _predictions(outcome).write_parquet(temporary / "predictions.parquet")
    outcome.ranges.write_csv(temporary / "ranges.csv")
    names = outcome.card.ranges.names
    counts = pl.DataFrame(outcome.confusion, schema=list(names)).insert_column(0, pl.Series("true", names))
    counts.write_csv(temporary / "confusion.csv")
    drawings = draw(outcome, temporary / "plots")
    (temporary / "report.html").write_text(render(outcome, drawings), encoding="utf-8")
    _json(temporary / "manifest.json", outcome.manifest(exclude_seen))
    _json(temporary / "metrics.json", {"digest": key} | outcome.summary())
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _predictions(outcome: Outcome) -> pl.DataFrame:
    judged = outcome.judged
    columns = {f"p{k}": judged.probabilities[:, k].astype("float32") for k in range(judged.probabilities.shape[1])}
    return outcome.table.select("digest", "group", "age", "label").with_columns(
        pl.Series("predicted", judged.predicted, dtype=pl.Int16),
        pl.Series("years", judged.years, dtype=pl.Float32),
        **{name: pl.Series(values) for name, values in columns.items()},
    )


def _json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _record(folder: Path) -> Evaluation:
    found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    fields = ("digest", "model", "rows", "count", "metrics", "intervals", "excluded")
    return Evaluation(folder=folder, **{name: found[name] for name in fields})
