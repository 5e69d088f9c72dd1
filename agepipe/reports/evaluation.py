"""What an evaluation leaves in its folder: figures, tables, plots, and the report that shows them all."""

import json
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.config.runtime import Runtime
from agepipe.config.stages import EvaluateSettings
from agepipe.core.artifacts import read_manifest
from agepipe.core.errors import DataError
from agepipe.core.progress import Progress, silent
from agepipe.core.record import digest_of
from agepipe.data.records import Rows
from agepipe.evaluation.evaluate import examine, judge
from agepipe.evaluation.mistakes import DOUBTS, surest_mistakes
from agepipe.evaluation.predictions import pixels_of
from agepipe.evaluation.records import Evaluation
from agepipe.evaluation.result import Outcome
from agepipe.model.lineage import refuse
from agepipe.model.records import Model
from agepipe.reports import sentences
from agepipe.reports.model_card import model_card
from agepipe.reports.report import render

VERSION = 7
"""Raised when the same inputs would give another folder; part of the digest, and kept in `metrics.json`."""
PREDICTIONS = 5
"""The first version whose predictions are those of today, so that a champion evaluated since then can be compared."""
KNOWN = ("gender", "race", "width", "height", "brightness", "sharpness")
"""What is known of a row and kept beside what was predicted, where the rows have it."""


def evaluate(
    model: Model,
    rows: Rows,
    settings: EvaluateSettings,
    folder: Path,
    runtime: Runtime,
    *,
    exclude_seen: bool = False,
    against: Evaluation | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Judge a model on rows, and write down what was found.

    Args:
        model: the bundle.
        rows: rows that the model has not seen.
        settings: draws, confidence and seed of the intervals; level of the sets, and least support of a slice.
        folder: an empty folder, which gets figures, tables, plots and pages.
        runtime: workspace of the predictions, and how many parts to predict at a time.
        exclude_seen: judge on the rest where the model has seen some rows, and say so.
        against: an evaluation of the champion on the same rows, whose figures the report shows beside the model's.
        progress: told while rows are predicted.

    Raises:
        LeakageError: the model has seen some of the rows, and they are not to be excluded.
        ModelError: the bundle cannot be used.
        DataError: the rows cannot be used, or none is left.
    """
    subject = examine(model, rows)
    if not exclude_seen:
        refuse(subject.overlap, f"model {model.digest[:10]}")
    against = None if against is None or against.model == model.digest else against
    key = digest_of("evaluation", VERSION, model, rows, settings, exclude_seen, against)
    outcome = judge(subject, settings, runtime, progress, against)
    write(folder, key, VERSION, outcome, pixels_of(rows, outcome.table))
    return read(folder)


def finished(model: str, rows: Rows, runtime: Runtime) -> Evaluation | None:
    """The newest evaluation in the workspace of the model of that digest on these very rows; None where there is none.

    Its settings may be others: what it predicted is compared, not its intervals.
    """
    folders = sorted((runtime.workspace / "evaluations").glob("*/metrics.json"), key=lambda path: -path.stat().st_mtime)
    return next((read(path.parent) for path in folders if _is_of(path, model, rows)), None)


def _is_of(path: Path, model: str, rows: Rows) -> bool:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known = found["version"] >= PREDICTIONS and (found["model"], found["rows"]) == (model, rows.digest)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return known and read_manifest(path.parent) is not None


def write(folder: Path, key: str, version: int, outcome: Outcome, pixels: NDArray[np.uint8]) -> None:
    """Fill an evaluation's folder.

    Args:
        folder: an empty one.
        key: the evaluation's digest.
        version: of what computes it.
        outcome: what was found.
        pixels: the store that the rows' `index` points into, for the pictures of the report.
    """
    from agepipe.reports.plots import draw  # plotting takes a second to import

    (folder / "plots").mkdir()
    predictions(outcome).write_parquet(folder / "predictions.parquet")
    outcome.ranges.write_csv(folder / "ranges.csv")
    outcome.slices.write_csv(folder / "slices.csv")
    outcome.doubtful.drop("index").write_csv(folder / "label-errors.csv")
    names = outcome.card.ranges.names
    counts = pl.DataFrame(outcome.confusion, schema=list(names)).insert_column(0, pl.Series("true", names))
    counts.write_csv(folder / "confusion.csv")
    drawings = draw(outcome, folder / "plots")
    page = render(outcome, drawings, shown(outcome, pixels))
    (folder / "report.html").write_text(page, encoding="utf-8")
    (folder / "model-card.md").write_text(model_card(outcome), encoding="utf-8")
    words = {"verdict": sentences.verdict(outcome), "warning": sentences.warning(outcome)}
    summary = {"digest": key, "version": version} | words | outcome.summary()
    (folder / "metrics.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def predictions(outcome: Outcome) -> pl.DataFrame:
    """One row a judged row, as `agepipe.evaluation.records.Evaluation.predictions` says."""
    judged, table = outcome.judged, outcome.table
    columns = {f"p{k}": judged.probabilities[:, k].astype("float32") for k in range(judged.probabilities.shape[1])}
    ends = {} if outcome.sets is None else {"low": outcome.sets.low, "high": outcome.sets.high}
    return table.select("digest", "group", "age", "label").with_columns(
        pl.Series("predicted", judged.predicted, dtype=pl.Int16),
        pl.Series("years", judged.years, dtype=pl.Float32),
        **{name: pl.Series(values) for name, values in columns.items()},
        **{name: pl.Series(values, dtype=pl.Int16) for name, values in ends.items()},
        **{name: table[name] for name in KNOWN if name in table.columns},
    )


def shown(outcome: Outcome, pixels: NDArray[np.uint8]) -> dict[int, NDArray[np.uint8]]:
    """The pictures that the report shows, by their place in the pixel store."""
    wrong = outcome.table["index"].to_numpy()[surest_mistakes(outcome.judged)]
    return {int(at): pixels[at] for at in (*wrong, *outcome.doubtful["index"].head(DOUBTS))}


def read(folder: Path) -> Evaluation:
    """The record of an evaluation's folder.

    Raises:
        DataError: its figures cannot be read.
    """
    path = folder / "metrics.json"
    fields = (
        "digest", "model", "rows", "count", "metrics", "intervals", "confidence", "excluded", "decoding", "verdict",
        "warning",
    )  # fmt: skip
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        kept = {name: found[name] for name in fields}
        return Evaluation(folder=folder, lineage=found["lineage"]["status"], **kept)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not the figures of an evaluation ({error}); remove {folder} to judge anew."
        ) from error
