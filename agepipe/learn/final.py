"""The last training: the chosen setting on all development rows, or all but a validation part, exported as a bundle.

Nothing here imports torch; training and export happen in processes of their own.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.artifact import read_manifest, whole, write_manifest
from agepipe.config import FinalSettings, LearnSettings, Where
from agepipe.data.split import holdout
from agepipe.errors import ModelError, TrainingError
from agepipe.learn.job import EpochEvent, Examples, Fitted, Job
from agepipe.learn.names import is_file
from agepipe.learn.process import isolated
from agepipe.learn.runs import fitting, in_progress, labelled, made_with, threads, weights_digest
from agepipe.records import Choice, Model, Rows, digest_of
from agepipe.serve.bundle import CURVES, LINEAGE, NETWORK, WEIGHTS, Card, digest, read_card, write_card, write_lineage
from agepipe.settings import changed

VERSION = 2
"""Raised when the same rows and settings would train to something else."""
COMPARED = 64
"""Validation pictures on which the exported network must agree with the trained one."""


def train(
    rows: Rows, learn: LearnSettings, choice: Choice, final: FinalSettings, where: Where,
    on_epoch: Callable[[EpochEvent], None] | None = None,
) -> Model:  # fmt: skip
    """Train with the chosen setting and export the best epoch, or find the finished bundle; a half-done one goes on.

    Args:
        rows: the development rows.
        learn: the base setting.
        choice: what the search changes in it.
        final: epochs, validation part, patience and metric.
        where: workspace, device and threads.
        on_epoch: called after each epoch.

    Raises:
        ConfigError: a setting is not allowed.
        TrainingError: the training cannot go on, or its process died.
        DataError: the rows cannot be read.
        ModelError: the exported network answers differently from the trained one.
    """
    learn = changed(learn, {**choice.settings, "epochs": final.epochs}, "search.grid")
    searched = choice.trials > 0
    key = digest_of("model", VERSION, rows, learn, weights_digest(learn), final, searched)
    folder = where.workspace / "models" / f"{rows.name or 'rows'}-{key[:10]}"
    with in_progress(folder) as work:
        if read_manifest(folder) is None:
            job, table = _job(rows, learn, final, work, where)
            _bundle(folder, job, isolated(fitting, job, on_event=on_epoch), rows, final, table)
    return _record(folder)


def _job(rows: Rows, learn: LearnSettings, final: FinalSettings, work: Path, where: Where) -> tuple[Job, pl.DataFrame]:
    table = labelled(rows)
    aside = np.zeros(len(table), np.bool_) if final.refit else holdout(table, final.validation, final.seed)
    table = table.with_columns(pl.Series("validation", aside))
    job = Job(
        folder=work, pixels=rows.pixels, ranges=rows.ranges, learn=learn, metric=final.metric, patience=final.patience,
        train=Examples.of(table.filter(~pl.col("validation"))),
        validation=Examples.of(table.filter(pl.col("validation"))),
        device=where.device, threads=threads(learn, where),
    )  # fmt: skip
    return job, table


def _bundle(folder: Path, job: Job, fitted: Fitted, rows: Rows, final: FinalSettings, table: pl.DataFrame) -> None:
    seen, lineage = lineage_of(table, job.learn)
    with whole(folder) as draft:
        isolated(exporting, job, fitted, draft)
        write_card(draft, _card(job, fitted, rows, final, lineage))
        write_lineage(draft, seen)
        pl.DataFrame(fitted.curves).write_parquet(draft / CURVES)
        result = {
            "digest": digest(draft), "lineage": lineage, "metrics": fitted.metrics,
            "best_epoch": fitted.best, "epochs": len(fitted.curves), "seconds": fitted.seconds,
        }  # fmt: skip
        write_manifest(draft, "train", final, {"rows": rows.digest}, result)


def exporting(job: Job, fitted: Fitted, folder: Path) -> None:
    """What the process of an export runs: the kept weights, as ONNX and as a state dict."""
    from agepipe.learn import checkpoint
    from agepipe.learn.export import export
    from agepipe.learn.fit import BEST, network_of

    network = network_of(job, fitted, job.folder / BEST)
    checkpoint.save(network.state_dict(), folder / WEIGHTS)
    export(network, _pictures(job), folder / NETWORK)


def _pictures(job: Job) -> NDArray[np.uint8]:
    from agepipe.learn.batches import open_store

    some = np.concatenate([job.validation.index, job.train.index])[:COMPARED]
    return np.ascontiguousarray(open_store(job.pixels)[some])


def _card(job: Job, fitted: Fitted, rows: Rows, final: FinalSettings, lineage: str) -> Card:
    return Card(
        ranges=job.ranges, size=rows.size, input=job.learn.size, network=job.learn.network,
        mean=fitted.mean, std=fitted.std, rows=rows.digest, lineage=lineage,
        config={"learn": job.learn.model_dump(mode="json"), "final": final.model_dump(mode="json")},
        versions=made_with(),
    )  # fmt: skip


def lineage_of(table: pl.DataFrame, learn: LearnSettings) -> tuple[pl.DataFrame, str]:
    """Every photograph that the network has seen, each once, and whether that is all of them.

    Whatever was not fitted on was chosen by: the validation rows always, and by the search all rows.

    Args:
        table: `digest`, `look`, and bool `validation` of each development row.
        learn: its `weights` may be those of an earlier bundle, whose lineage then goes along.

    Returns:
        `digest`, `look`, `role`; and `known`, or `unknown` when the first weights came from a file without lineage.
    """
    role = pl.when(pl.col("validation")).then(pl.lit("chosen")).otherwise(pl.lit("fitted"))
    seen = [table.select("digest", "look", role.alias("role"))]
    lineage = "known"
    if is_file(learn.weights):
        before = Path(learn.weights).parent / LINEAGE
        lineage = _known(before.parent) if before.is_file() else "unknown"
        if before.is_file():
            seen.append(pl.read_parquet(before).select("digest", "look", "role"))
    # 'fitted' sorts after 'chosen', and is the stronger
    return pl.concat(seen).sort("digest", "role", descending=[False, True]).unique("digest", keep="first"), lineage


def _known(folder: Path) -> str:
    try:
        return read_card(folder).lineage
    except ModelError:
        return "unknown"


def _record(folder: Path) -> Model:
    found = read_manifest(folder)
    if found is None:
        raise TrainingError(f"{folder}: the finished model cannot be found again; was it removed? Run it again.")
    result = found["result"]
    kept = {name: result[name] for name in ("digest", "lineage", "metrics", "seconds")}
    return Model(folder=folder, epochs=result["best_epoch"], **kept)
