"""Judge a model on rows that it has not seen, and write down everything that was found.

The order matters: first what the model has seen is checked, then it predicts, then it is judged. The figures are those
of the exported file that serves.
"""

import json
from pathlib import Path

import polars as pl

from agepipe.artifact import read_manifest, whole, write_manifest
from agepipe.config import EvaluateSettings, Where
from agepipe.errors import DataError, ModelError
from agepipe.judge.answers import Answers, answer, read_rows
from agepipe.judge.lineage import overlap, refuse
from agepipe.judge.metrics import Judged, checked
from agepipe.judge.outcome import Outcome, Subject, numbers
from agepipe.judge.report import render
from agepipe.progress import Progress, silent
from agepipe.records import Evaluation, Model, Rows, digest_of
from agepipe.serve.bundle import Card, digest, read_card, read_curves, read_lineage

VERSION = 2
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
    subject = examine(model, rows)
    if not exclude_seen:
        refuse(subject.overlap, f"model {model.digest[:10]}")
    key = digest_of("evaluation", VERSION, model, rows, settings, exclude_seen)
    folder = where.workspace / "evaluations" / f"{rows.name or 'rows'}-{key[:10]}"
    if read_manifest(folder) is None:
        outcome = judge(subject, settings, where, progress)
        with whole(folder) as draft:
            _write(draft, key, outcome, exclude_seen)
    return _record(folder)


def examine(model: Model, rows: Rows) -> Subject:
    """Open a bundle and rows, and find out which of the rows the model has seen.

    Raises:
        ModelError: the bundle cannot be used.
        DataError: the rows cannot be used.
    """
    card = check_model(model)
    table, lineage = read_rows(rows), read_lineage(model.folder)
    return Subject(model, card, rows, table, lineage, overlap(lineage, table))


def judge(subject: Subject, settings: EvaluateSettings, where: Where, progress: Progress = silent) -> Outcome:
    """Predict the rows that the model has not seen, and compute everything about them.

    Raises:
        ModelError: the bundle cannot be used.
        DataError: the rows cannot be used, or none is left.
    """
    card = subject.card
    table, outside = labelled(card, subject.table.filter(~pl.Series(subject.overlap.seen)))
    answers = answer(subject.model, subject.rows, table, where, progress)
    judged = judged_by(table, answers)
    return Outcome(
        **{**vars(subject), "table": table},
        settings=settings,
        judged=judged,
        curves=read_curves(subject.model.folder),
        outside=outside,
        seconds=answers.seconds,
        notes=tuple(_notes(card, subject.rows)),
        **numbers(judged, table["group"], card.ranges.names, settings),
    )


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
    from agepipe.judge.plots import draw  # plotting takes a second to import

    (folder / "plots").mkdir()
    _predictions(outcome).write_parquet(folder / "predictions.parquet")
    outcome.ranges.write_csv(folder / "ranges.csv")
    names = outcome.card.ranges.names
    counts = pl.DataFrame(outcome.confusion, schema=list(names)).insert_column(0, pl.Series("true", names))
    counts.write_csv(folder / "confusion.csv")
    drawings = draw(outcome, folder / "plots")
    (folder / "report.html").write_text(render(outcome, drawings), encoding="utf-8")
    summary = {"digest": key} | outcome.summary()
    (folder / "metrics.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    inputs = {"model": outcome.model.digest, "rows": outcome.rows.digest}
    result = {name: summary[name] for name in ("digest", "count", "excluded", "outside", "notes")}
    write_manifest(folder, "evaluate", outcome.settings, inputs, result | {"exclude_seen": exclude_seen})


def _predictions(outcome: Outcome) -> pl.DataFrame:
    judged = outcome.judged
    columns = {f"p{k}": judged.probabilities[:, k].astype("float32") for k in range(judged.probabilities.shape[1])}
    return outcome.table.select("digest", "group", "age", "label").with_columns(
        pl.Series("predicted", judged.predicted, dtype=pl.Int16),
        pl.Series("years", judged.years, dtype=pl.Float32),
        **{name: pl.Series(values) for name, values in columns.items()},
    )


def _record(folder: Path) -> Evaluation:
    found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    fields = ("digest", "model", "rows", "count", "metrics", "intervals", "confidence", "excluded")
    return Evaluation(folder=folder, **{name: found[name] for name in fields})
