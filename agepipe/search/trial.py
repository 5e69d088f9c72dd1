"""One trial of the search: a setting trained from a fresh network on all folds but one, and evaluated on that one.

Nothing here imports torch; the training runs in a process of its own.
"""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import polars as pl

from agepipe.config.runtime import Runtime
from agepipe.config.stages import LOWER_IS_BETTER, LearnSettings, Metric
from agepipe.core.artifacts import partial
from agepipe.core.record import digest_of
from agepipe.data.records import Rows
from agepipe.data.stratify import folds
from agepipe.search.gpu_slots import gpu_slot
from agepipe.search.records import Fold, Trial
from agepipe.training.job import EpochEvent, Examples, Fitted, Job
from agepipe.training.warm_start import check_fold
from agepipe.training.workdir import fitting, labelled, trial_threads, weights_digest
from agepipe.training.worker import isolated

VERSION = 5
"""Raised when the same rows and settings train to something else; part of the digests."""

OUTCOMES = "validation.parquet"
"""In a finished trial's folder: `digest`, `label` and the probabilities `p0`, `p1`, ... of each row of its fold."""

CURVES = "curves.parquet"
"""In a trial's folder: the figures of each epoch."""

PAUSED = "paused"
"""In a paused trial's folder: its checkpoint, until the trial is finished or stopped."""

OnEpoch = Callable[[EpochEvent], None]


def trial(
    rows: Rows, learn: LearnSettings, fold: Fold, folder: Path, runtime: Runtime, on_epoch: OnEpoch | None = None,
    metric: Metric = "macro_recall", until: int | None = None, paused: Trial | None = None,
    finished: Trial | None = None,
) -> Trial:  # fmt: skip
    """Train one setting on all folds but `fold`, and evaluate it on that one.

    Args:
        rows: the development rows.
        learn: the setting to train.
        fold: the fold that is left out of the training and evaluated.
        folder: an empty folder; or one that an interrupted trial of the same arguments has left with its
            `agepipe.core.artifacts.partial`, from whose last checkpoint the training then continues.
        runtime: device and threads.
        on_epoch: called after each epoch.
        metric: validation figure that decides which epoch is the best.
        until: epoch, below `learn.epochs`, after which to pause. The checkpoint stays in `folder`, and a later call
            continues from it. None trains to the end.
        paused: result of the same trial as it paused earlier, to continue from.
        finished: result of the same trial as it ran to the end, from which a pause takes the first epochs.

    Raises:
        ConfigError: there are fewer rows than a batch has.
        TrainingError: the training cannot continue, or its process died.
        DataError: the rows cannot be read.
        LeakageError: the first weights were fitted on rows of the fold.
    """
    digest = digest_of("trial", VERSION, rows, learn, weights_digest(learn), fold, metric)
    train, validation = parts(rows, fold)
    if finished is not None and until is not None:
        fitted = _fitted(finished)
    else:
        check_fold(learn, validation)
        work = partial(folder)
        if paused is not None and not work.exists():
            _copy_checkpoint(paused, work)
        with gpu_slot(runtime) as gpu:
            job = Job(
                folder=work, pixels=rows.pixels, ranges=rows.ranges, learn=learn, metric=metric,
                train=Examples.of(train), validation=Examples.of(validation),
                device=runtime.device, threads=trial_threads(learn, runtime), gpu=gpu, until=until,
                keep_last=until is not None,  # to continue; otherwise saving takes longer than a small epoch
            )  # fmt: skip
            fitted = isolated(fitting, job, on_event=on_epoch)
        if until is not None:
            shutil.copytree(work, folder / PAUSED, dirs_exist_ok=True)
    if until is not None:
        (folder / PAUSED).mkdir(exist_ok=True)
        fitted, digest = first_epochs(fitted, until, metric), digest_of(digest, until)
    pl.DataFrame(fitted.curves).write_parquet(folder / CURVES)
    if fitted.probabilities is not None:
        probabilities = pl.DataFrame(fitted.probabilities, schema=[f"p{k}" for k in range(len(rows.ranges))])
        validation.select("digest", "label").hstack(probabilities).write_parquet(folder / OUTCOMES)
    return Trial(
        digest=digest, settings={}, setting=0, fold=fold, folder=folder, metrics=fitted.metrics,
        seconds=fitted.seconds, epochs=len(fitted.curves), parameters=fitted.parameters, planned=learn.epochs,
    )  # fmt: skip


def _copy_checkpoint(paused: Trial, work: Path) -> None:
    """Copy the checkpoint of a paused trial; a killed process leaves no incomplete `work`."""
    draft = work.with_name(f"{work.name}-copy")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(paused.folder / PAUSED, draft)
    draft.rename(work)


def _fitted(finished: Trial) -> Fitted:
    """The training of a finished trial, without its probabilities."""
    curves = pl.read_parquet(finished.folder / CURVES).to_dicts()
    return Fitted(curves=curves, metrics=finished.metrics, seconds=finished.seconds, parameters=finished.parameters)


def first_epochs(fitted: Fitted, count: int, metric: Metric) -> Fitted:
    """A training as it was after its first `count` epochs."""
    curves = fitted.curves[:count]
    sign = -1 if metric in LOWER_IS_BETTER else 1
    best = max(curves, key=lambda row: sign * row[f"validation_{metric}"])
    metrics = {name.removeprefix("validation_"): best[name] for name in best if name.startswith("validation_")}
    seconds = sum(row["seconds"] for row in curves)
    best_epoch = int(best["epoch"])
    return replace(fitted, curves=curves, best=best_epoch, metrics=metrics, seconds=seconds, probabilities=None)


def forget(trials: Iterable[Trial]) -> None:
    """Remove the checkpoints of paused trials; their figures stay."""
    for one in trials:
        for path in (one.folder / PAUSED).glob("*"):
            path.unlink()


def parts(rows: Rows, fold: Fold) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The labelled rows that a trial is trained on, and those that it is evaluated on."""
    table = labelled(rows)
    assigned = folds(table, fold.count, fold.seed, rows.ranges)
    return table.filter(assigned != fold.index), table.filter(assigned == fold.index)
