"""Evaluate a model and write the folder of the evaluation: figures, tables, plots, report and model card."""

import json
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.config.runtime import Runtime
from agepipe.config.stages import EvaluateSettings
from agepipe.core.artifacts import read_manifest, turn
from agepipe.core.errors import DataError
from agepipe.core.progress import Progress, silent
from agepipe.core.record import digest_of
from agepipe.data.records import Rows
from agepipe.evaluation.evaluate import compute_outcome, open_subject
from agepipe.evaluation.mistakes import DOUBTS, confident_mistakes
from agepipe.evaluation.predictions import pixels_of
from agepipe.evaluation.records import Evaluation
from agepipe.evaluation.result import Outcome
from agepipe.model.lineage import refuse
from agepipe.model.records import Model
from agepipe.reports import sentences
from agepipe.reports.model_card import model_card
from agepipe.reports.report import render

VERSION = 7
"""Raise it when the same inputs give another folder; part of the digest, and stored in `metrics.json`."""
COMPARABLE_SINCE = 5
"""First version whose predictions are computed as today; an evaluation since then can be compared with new ones."""
ROW_COLUMNS = ("gender", "race", "width", "height", "brightness", "sharpness")
"""Columns of the rows that are copied into the table of predictions, if they exist."""


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
    """Evaluate a model on rows, and write the results.

    Args:
        model: the model.
        rows: rows that the model has not seen.
        settings: draws, confidence and seed of the intervals; level of the sets, and least size of a slice.
        folder: an empty folder for figures, tables, plots and pages.
        runtime: workspace of the predictions, and number of workers.
        exclude_seen: evaluate on the other rows if the model has seen some.
        against: an evaluation of the champion on the same rows, with which the report compares the model.
        progress: called while rows are predicted.

    Raises:
        LeakageError: the model has seen some of the rows, and `exclude_seen` is false.
        ModelError: the bundle cannot be used.
        DataError: the rows cannot be used, or none is left.
    """
    subject = open_subject(model, rows)
    if not exclude_seen:
        refuse(subject.overlap, f"model {model.digest[:10]}")
    against = None if against is None or against.model == model.digest else against
    key = digest_of("evaluation", VERSION, model, rows, settings, exclude_seen, against)
    outcome = compute_outcome(subject, settings, runtime, progress, against)
    write(folder, key, VERSION, outcome, pixels_of(rows, outcome.table))
    return read(folder)


def finished(model: str, rows: Rows, runtime: Runtime) -> Evaluation | None:
    """Find the newest evaluation of a model on these rows in the workspace; None if there is none.

    Its settings may differ, because only its predictions are compared.

    Args:
        model: digest of the model.
        rows: the rows.
        runtime: the workspace.
    """
    for folder, manifest in runtime.mirror.elsewhere("evaluations"):
        if (manifest["inputs"].get("model"), manifest["inputs"].get("rows")) == (model, rows.digest):
            with turn(folder):
                runtime.mirror.settle(folder)
    folders = sorted((runtime.workspace / "evaluations").glob("*/metrics.json"), key=lambda path: -path.stat().st_mtime)
    return next((read(path.parent) for path in folders if _is_of(path, model, rows)), None)


def _is_of(path: Path, model: str, rows: Rows) -> bool:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known = found["version"] >= COMPARABLE_SINCE and (found["model"], found["rows"]) == (model, rows.digest)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return known and read_manifest(path.parent) is not None


def write(folder: Path, key: str, version: int, outcome: Outcome, pixels: NDArray[np.uint8]) -> None:
    """Write the files of an evaluation.

    Args:
        folder: an empty folder.
        key: digest of the evaluation.
        version: `VERSION`.
        outcome: the results.
        pixels: the pixel store, uint8 `(n, s, s, 3)`, for the pictures of the report.
    """
    from agepipe.reports.plots import draw  # plotting takes a second to import

    (folder / "plots").mkdir()
    predictions_table(outcome).write_parquet(folder / "predictions.parquet")
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


def predictions_table(outcome: Outcome) -> pl.DataFrame:
    """The table of `agepipe.evaluation.records.Evaluation.predictions`."""
    predictions, table = outcome.predictions, outcome.table
    columns = {
        f"p{k}": predictions.probabilities[:, k].astype("float32") for k in range(predictions.probabilities.shape[1])
    }
    ends = {} if outcome.sets is None else {"low": outcome.sets.low, "high": outcome.sets.high}
    return table.select("digest", "group", "age", "label").with_columns(
        pl.Series("predicted", predictions.predicted, dtype=pl.Int16),
        pl.Series("years", predictions.years, dtype=pl.Float32),
        **{name: pl.Series(values) for name, values in columns.items()},
        **{name: pl.Series(values, dtype=pl.Int16) for name, values in ends.items()},
        **{name: table[name] for name in ROW_COLUMNS if name in table.columns},
    )


def shown(outcome: Outcome, pixels: NDArray[np.uint8]) -> dict[int, NDArray[np.uint8]]:
    """The pictures of the report, by their index in the pixel store."""
    mistakes = outcome.table["index"].to_numpy()[confident_mistakes(outcome.predictions)]
    return {int(at): pixels[at] for at in (*mistakes, *outcome.doubtful["index"].head(DOUBTS))}


def read(folder: Path) -> Evaluation:
    """Read the record of an evaluation from its folder.

    Raises:
        DataError: `metrics.json` cannot be read.
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
            f"{path}: not the figures of an evaluation ({error}); remove {folder} to evaluate again."
        ) from error
