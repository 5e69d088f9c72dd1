"""The final training: train the chosen setting on the development rows, and export the network as a bundle.

This module does not import torch; training and export run in processes of their own.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.config.base import changed
from agepipe.config.runtime import Runtime
from agepipe.config.stages import FinalSettings, LearnSettings
from agepipe.core.artifacts import partial
from agepipe.data.pixel_store import open_pixels
from agepipe.data.records import Rows
from agepipe.data.stratify import holdout
from agepipe.model.bundle import CURVES, NETWORK, WEIGHTS, Card, digest
from agepipe.model.bundle_files import Role, write_card, write_lineage
from agepipe.model.records import Model
from agepipe.training.calibrate import Calibration, calibrated
from agepipe.training.job import EpochEvent, Examples, Fitted, Job
from agepipe.training.ranks import train_together
from agepipe.training.records import Choice
from agepipe.training.warm_start import check_validation, seen_before
from agepipe.training.workdir import labelled, made_with, threads
from agepipe.training.worker import isolated

COMPARED = 64
"""Pictures on which ONNX and torch are compared; validation rows first."""


def chosen(learn: LearnSettings, choice: Choice, final: FinalSettings) -> LearnSettings:
    """The settings of the final training: `learn` with the values that the search chose, and `final.epochs` epochs."""
    return changed(learn, {**choice.settings, "epochs": final.epochs})


def train(
    rows: Rows, learn: LearnSettings, choice: Choice | None, final: FinalSettings, folder: Path, runtime: Runtime,
    on_epoch: Callable[[EpochEvent], None] | None = None,
) -> Model:  # fmt: skip
    """Train a network and export its best epoch.

    Args:
        rows: the development rows.
        learn: the settings, as `chosen` returns them.
        choice: result of the search, on whose out-of-fold predictions a refitted network is calibrated.
        final: validation part, patience and metric.
        folder: an empty folder, which becomes the bundle. If an interrupted training with the same arguments has left
            its checkpoints in `agepipe.core.artifacts.partial`, they are resumed.
        runtime: device, threads and processes.
        on_epoch: called after each epoch.

    Raises:
        ConfigError: there are fewer rows than in a batch.
        TrainingError: the training failed, or its process died.
        DataError: the rows cannot be read.
        ModelError: the exported network predicts differently from the trained one.
        LeakageError: the initial weights were fitted on validation rows.
    """
    job, table = _job(rows, learn, final, partial(folder), runtime)
    fitted = train_together(job, runtime, on_epoch)
    calibration = calibrated(job, fitted, choice)
    seen, lineage = lineage_of(table, learn, "chosen" if final.keep == "best" else "calibrated")
    isolated(exporting, job, fitted, calibration.temperature, folder)
    write_card(folder, _card(job, fitted, calibration, rows, final, lineage))
    write_lineage(folder, seen)
    pl.DataFrame(fitted.curves).write_parquet(folder / CURVES)
    return Model(
        digest=digest(folder), folder=folder, lineage=lineage, metrics=fitted.metrics, epochs=fitted.best,
        seconds=fitted.seconds,
    )  # fmt: skip


def _job(
    rows: Rows, learn: LearnSettings, final: FinalSettings, work: Path, runtime: Runtime
) -> tuple[Job, pl.DataFrame]:
    table = labelled(rows)
    validation = np.zeros(len(table), np.bool_) if final.refit else holdout(table, final.validation, final.seed)
    table = table.with_columns(pl.Series("validation", validation))
    check_validation(learn, table.filter(pl.col("validation")))
    best = final.keep == "best"
    job = Job(
        folder=work, pixels=rows.pixels, ranges=rows.ranges, learn=learn,
        metric=final.metric if best else None, patience=final.patience if best else None,
        train=Examples.of(table.filter(~pl.col("validation"))),
        validation=Examples.of(table.filter(pl.col("validation"))),
        device=runtime.device, threads=threads(learn, runtime),
    )  # fmt: skip
    return job, table


def exporting(job: Job, fitted: Fitted, temperature: float, folder: Path) -> None:
    """Entry point of the export's process: write the weights of the best epoch as ONNX and as a state dict."""
    from agepipe.training import checkpoints
    from agepipe.training.export import export
    from agepipe.training.loop import BEST, network_of

    network = network_of(job, fitted, job.folder / BEST)
    network.readout.temperature = temperature
    checkpoints.save(network.state_dict(), folder / WEIGHTS)
    export(network, _pictures(job), folder / NETWORK)


def _pictures(job: Job) -> NDArray[np.uint8]:
    index = np.concatenate([job.validation.index, job.train.index])[:COMPARED]
    return np.ascontiguousarray(open_pixels(job.pixels)[index])


def _card(
    job: Job, fitted: Fitted, calibration: Calibration, rows: Rows, final: FinalSettings, lineage: str
) -> Card:  # fmt: skip
    return Card(
        ranges=job.ranges, size=rows.size, input=job.learn.size, network=job.learn.network,
        mean=fitted.mean, std=fitted.std, rows=rows.digest, lineage=lineage, decoding=job.learn.decoding,
        temperature=calibration.temperature, thresholds=calibration.thresholds, calibrated=calibration.on,
        config={
            "learn": job.learn.model_dump(mode="json"), "final": final.model_dump(mode="json"),
            "precision": fitted.precision,
        },
        versions=made_with(),
    )  # fmt: skip


def lineage_of(table: pl.DataFrame, learn: LearnSettings, validated: Role = "chosen") -> tuple[pl.DataFrame, str]:
    """The lineage of a network: every photograph that it was fitted on, selected by or calibrated on, each once.

    Args:
        table: the development rows, with `digest`, `look`, and bool `validation`; rows of the training get the role
            `fitted`.
        learn: if its `weights` are those of a bundle, the lineage of that is included.
        validated: role of the validation rows: `chosen` if they selected the epoch, `calibrated` if they did not.

    Returns:
        A table with `digest`, `look` and `role`; and `known`, or `unknown` if the initial weights are a file without
        lineage.
    """
    role = pl.when(pl.col("validation")).then(pl.lit(validated)).otherwise(pl.lit("fitted"))
    before, lineage = seen_before(learn)
    seen = pl.concat([table.select("digest", "look", role.alias("role")), before])
    # a photograph with several roles is 'fitted', which sorts after 'chosen' and 'calibrated'
    return seen.sort("digest", "role", descending=[False, True]).unique("digest", keep="first"), lineage
