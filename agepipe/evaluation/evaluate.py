"""Evaluate a model on rows that it has not seen.

The order matters: first the rows are checked against the model's lineage, then they are predicted, then evaluated. The
exported network is evaluated, which is the one that cameras use.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from agepipe.config.runtime import Runtime
from agepipe.config.stages import EvaluateSettings
from agepipe.core.errors import DataError, ModelError
from agepipe.core.progress import Progress, silent
from agepipe.data.labels import class_column
from agepipe.data.records import Rows
from agepipe.evaluation.comparison import paired_differences
from agepipe.evaluation.compute import numbers
from agepipe.evaluation.metrics import Predictions, checked
from agepipe.evaluation.predictions import Answers, answer, read_rows
from agepipe.evaluation.preprocessing_check import check_normalisation, doubt
from agepipe.evaluation.records import Evaluation
from agepipe.evaluation.result import Champion, Outcome, Subject
from agepipe.model.bundle import Card, digest, read_card
from agepipe.model.bundle_files import read_curves, read_lineage
from agepipe.model.decoding import decide
from agepipe.model.lineage import overlap
from agepipe.model.records import Model


def open_subject(model: Model, rows: Rows) -> Subject:
    """Open a bundle and rows, and find out which of the rows the model has seen.

    Raises:
        ModelError: the bundle cannot be used.
        DataError: the rows cannot be used.
    """
    card = check_model(model)
    table, lineage = read_rows(rows), read_lineage(model.folder)
    return Subject(model, card, rows, table, lineage, overlap(lineage, table))


def compute_outcome(
    subject: Subject,
    settings: EvaluateSettings,
    runtime: Runtime,
    progress: Progress = silent,
    against: Evaluation | None = None,
) -> Outcome:
    """Predict the rows that the model has not seen, and compute everything about them.

    Raises:
        ModelError: the bundle cannot be used.
        DataError: the rows cannot be used, or none is left.
    """
    card = subject.card
    table, outside = labelled(card, subject.table.filter(~pl.Series(subject.overlap.seen)))
    answers = answer(subject.model, subject.rows, table, runtime, progress)
    predictions, curves = labelled_predictions(card, table, answers), read_curves(subject.model.folder)
    champion = None if against is None else compare_with_champion(against, card, table, predictions, settings)
    doubted = doubt(card, curves, subject.lineage, predictions.right)
    notes = _notes(card, subject.rows, unmatched=against is not None and champion is None)
    return Outcome(
        **{**vars(subject), "table": table},
        settings=settings,
        predictions=predictions,
        curves=curves,
        outside=outside,
        seconds=answers.seconds,
        champion=champion,
        notes=tuple(filter(None, [doubted, *notes])),
        **numbers(predictions, table, card, settings),
    )


def check_model(model: Model) -> Card:
    """The card of a bundle that is still what its record says.

    Raises:
        ModelError: a file is missing or was changed, or the network's normalisation differs from that of its card.
    """
    if (found := digest(model.folder)) != model.digest:
        raise ModelError(
            f"{model.folder}: the network and its card have the digest {found[:10]}, but the record says "
            f"{model.digest[:10]}; a file was changed, so export the model again."
        )
    card = read_card(model.folder)
    check_normalisation(model.folder, card)
    return card


def labelled(card: Card, table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The rows whose age is in one of the model's ranges, with `label` in its class order, and the number of others.

    Raises:
        DataError: none is left.
    """
    kept = table.with_columns(class_column(card.ranges).alias("label")).drop_nulls("label")
    if kept.is_empty():
        raise DataError(
            f"rows: of {len(table)} rows that the model has not seen none has an age between {card.ranges.youngest} "
            f"and {card.ranges.oldest or 'any'}; give rows on which it can be evaluated."
        )
    return kept, len(table) - len(kept)


def labelled_predictions(card: Card, table: pl.DataFrame, answers: Answers) -> Predictions:
    """Labels and predictions of labelled rows, checked."""
    probabilities, said = answers.prediction
    years = card.ranges.within(decide(probabilities, card.decoding), said)
    return checked(table["label"].to_numpy(), probabilities, table["age"].to_numpy(), years, card.decoding)


def predict_labelled(
    model: Model, card: Card, rows: Rows, kept: pl.DataFrame, runtime: Runtime, progress: Progress
) -> Predictions:
    """Labels and predictions of rows, all of which have an age in one of the model's ranges."""
    return labelled_predictions(card, labelled(card, kept)[0], answer(model, rows, kept, runtime, progress))


def unseen(table: pl.DataFrame, models: Sequence[Model], cards: Sequence[Card]) -> pl.DataFrame:
    """The rows that none of the models has seen, with an age in a range of each model."""
    keep = np.ones(len(table), dtype=bool)
    for model, card in zip(models, cards, strict=True):
        keep &= ~overlap(read_lineage(model.folder), table).seen
        keep &= card.ranges.classes(table["age"].cast(pl.Int64).to_numpy()) >= 0
    return table.filter(pl.Series(keep))


def compare_with_champion(
    against: Evaluation, card: Card, table: pl.DataFrame, predictions: Predictions, settings: EvaluateSettings
) -> Champion | None:
    """Compare with an evaluation of the champion, in all figures; None if its rows or its ranges differ.

    Raises:
        DataError: the evaluation's predictions cannot be read.
    """
    try:
        theirs = pl.read_parquet(against.predictions)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{against.predictions}: not a readable table; evaluate the champion again.") from error
    shares = [name for name in theirs.columns if name.startswith("p") and name[1:].isdecimal()]
    same = theirs["digest"].equals(table["digest"]) and theirs["label"].equals(table["label"])
    if not same or len(shares) != len(card.ranges):
        return None
    label, age, years = (theirs[name].to_numpy() for name in ("label", "age", "years"))
    other = checked(label, theirs.select(shares).to_numpy(), age, years, against.decoding)
    return Champion(against.model, paired_differences(table["group"].to_numpy(), predictions, other, settings).figures)


def _notes(card: Card, rows: Rows, *, unmatched: bool) -> list[str]:
    notes = []
    if unmatched:
        notes.append(
            "The champion was evaluated on other photographs or with other ranges, so its figures are not shown."
        )
    if rows.size != card.size:
        notes.append(f"The pictures were stored at {rows.size} px and brought to the model's {card.size} px.")
    if rows.ranges != card.ranges:
        notes.append(
            f"The data is labelled with {len(rows.ranges)} other ranges; the ages were mapped to the model's own "
            f"{len(card.ranges)}."
        )
    return notes
