"""The unit of the search: one setting, trained from a fresh network on all folds but one, judged on that one.

Nothing here imports torch; the training happens in a process of its own.
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import polars as pl

from agepipe.config.base import combinations
from agepipe.config.runtime import Runtime
from agepipe.config.stages import LOWER_IS_BETTER, LearnSettings, Metric, SearchSettings
from agepipe.core.artifacts import partial
from agepipe.core.errors import TrainingError
from agepipe.core.record import digest_of
from agepipe.data.records import Rows
from agepipe.data.stratify import folds
from agepipe.search.gpu_slots import placed
from agepipe.search.records import Fold, Trial
from agepipe.training.job import EpochEvent, Examples, Fitted, Job
from agepipe.training.records import Choice, Stopped
from agepipe.training.warm_start import check_fold
from agepipe.training.workdir import fitting, labelled, trial_threads, weights_digest
from agepipe.training.worker import isolated

VERSION = 5
"""Raised when the same rows and settings would train to something else; part of the digests."""

OUTCOMES = "validation.parquet"
"""In a whole trial's folder: `digest`, `label`, and `p0`, `p1`, ... of each row of the fold that was left out."""

PAUSED = "paused"
"""In a paused trial's folder: its checkpoint, until the trial has ended or is stopped."""

LEVEL = 1e-12
"""Means that differ by less are a tie."""

OnEpoch = Callable[[EpochEvent], None]
Planned = tuple[int, dict[str, Any], Fold]
"""A setting's position, its values by dotted name, and the fold that it is judged on."""


def plan(search: SearchSettings) -> list[Planned]:
    """Every setting of the grid on every fold; nothing for a single one, unless it is always judged."""
    settings = combinations(search.grid)
    if len(settings) == 1 and not search.always:
        return []
    return [step for position, one in enumerate(settings) for step in on_all_folds(position, one, search)]


def on_all_folds(position: int, settings: dict[str, Any], search: SearchSettings) -> list[Planned]:
    """One setting on every fold."""
    parts = [Fold(index=index, count=search.folds, seed=search.seed) for index in range(search.folds)]
    return [(position, settings, fold) for fold in parts]


def trial(
    rows: Rows, learn: LearnSettings, fold: Fold, folder: Path, runtime: Runtime, on_epoch: OnEpoch | None = None,
    metric: Metric = "macro_recall", until: int | None = None, before: Trial | None = None, whole: Trial | None = None,
) -> Trial:  # fmt: skip
    """Train one setting on all folds but `fold`, and judge it on that one.

    With `until` it pauses after that epoch of its whole schedule, and its folder keeps the checkpoint from which a
    call with more epochs goes on.

    Args:
        rows: the development rows.
        learn: the setting to train.
        fold: the fold that is left out of the training and judged.
        folder: an empty folder; or one that an interrupted trial of the same arguments has left with its
            `agepipe.core.artifacts.partial`, where it then goes on from the last checkpoint.
        runtime: device and threads.
        on_epoch: called after each epoch.
        metric: validation figure that the best epoch goes by.
        until: the epoch to pause after; None, or as many as there are, trains to the end.
        before: the same trial as it was paused earlier.
        whole: the same trial as it ran to the end earlier, whose first epochs are then known without training.

    Raises:
        ConfigError: there are fewer rows than a batch has.
        TrainingError: the training cannot go on, or its process died.
        DataError: the rows cannot be read.
        LeakageError: the first weights were fitted on rows of the fold.
    """
    digest = digest_of("trial", VERSION, rows, learn, weights_digest(learn), fold, metric)
    pause = until if until is not None and until < learn.epochs else None
    train, validation = parts(rows, fold)
    if whole is not None and pause is not None:
        fitted = _known(whole)
    else:
        check_fold(learn, validation)
        work = partial(folder)
        if before is not None and not work.exists():
            _go_on(before, work)
        with placed(runtime) as gpu:
            job = Job(
                folder=work, pixels=rows.pixels, ranges=rows.ranges, learn=learn, metric=metric,
                train=Examples.of(train), validation=Examples.of(validation),
                device=runtime.device, threads=trial_threads(learn, runtime), gpu=gpu, until=pause,
            )  # fmt: skip
            fitted = isolated(fitting, job, on_event=on_epoch)
        if pause is not None:
            shutil.copytree(work, folder / PAUSED, dirs_exist_ok=True)
    if pause is not None:
        (folder / PAUSED).mkdir(exist_ok=True)
        fitted = first_epochs(fitted, pause, metric)
    pl.DataFrame(fitted.curves).write_parquet(folder / "curves.parquet")
    if fitted.probabilities is not None:
        said = pl.DataFrame(fitted.probabilities, schema=[f"p{k}" for k in range(len(rows.ranges))])
        validation.select("digest", "label").hstack(said).write_parquet(folder / OUTCOMES)
    return Trial(
        digest=digest if pause is None else digest_of(digest, pause), settings={}, setting=0, fold=fold, folder=folder,
        metrics=fitted.metrics, seconds=fitted.seconds, epochs=len(fitted.curves), parameters=fitted.parameters,
        planned=learn.epochs,
    )  # fmt: skip


def _go_on(before: Trial, work: Path) -> None:
    """Begin with the checkpoint of a paused trial; a kill leaves no half of it."""
    draft = work.with_name(f"{work.name}-copy")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(before.folder / PAUSED, draft)
    draft.rename(work)


def _known(whole: Trial) -> Fitted:
    """The training of a trial that ran to the end."""
    curves = pl.read_parquet(whole.folder / "curves.parquet").to_dicts()
    return Fitted(curves=curves, metrics=whole.metrics, seconds=whole.seconds, parameters=whole.parameters)


def first_epochs(fitted: Fitted, count: int, metric: Metric) -> Fitted:
    """A training as it stood after its first epochs, whether or not it has gone on since."""
    curves = fitted.curves[:count]
    sign = -1 if metric in LOWER_IS_BETTER else 1
    best = max(curves, key=lambda row: sign * row[f"validation_{metric}"])
    metrics = {name.removeprefix("validation_"): best[name] for name in best if name.startswith("validation_")}
    seconds = sum(row["seconds"] for row in curves)
    best_epoch = int(best["epoch"])
    return replace(fitted, curves=curves, best=best_epoch, metrics=metrics, seconds=seconds, probabilities=None)


def forget(trials: Iterable[Trial]) -> None:
    """Remove the checkpoints of trials that were paused and will not go on; their figures stay."""
    for one in trials:
        for path in (one.folder / PAUSED).glob("*"):
            path.unlink()


def parts(rows: Rows, fold: Fold) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows that a trial learns from, and those that it is judged on."""
    table = labelled(rows)
    assigned = folds(table, fold.count, fold.seed, rows.ranges)
    return table.filter(assigned != fold.index), table.filter(assigned == fold.index)


def choose(
    trials: Sequence[Trial], search: SearchSettings, planned: Sequence[Planned] | None = None,
    early: Sequence[Trial] = (),
) -> Choice:  # fmt: skip
    """The setting with the best mean over folds.

    Ties go to the cheaper: fewer parameters, then fewer epochs, then the earlier in the grid. Never to the faster on
    the clock, which would choose differently on another day.

    Args:
        trials: those to choose among; all ran to the end.
        search: by which metric.
        planned: what should have been trained to the end; None is the whole grid.
        early: trials that were stopped early; the choice remembers them and does not compare them.

    Raises:
        TrainingError: there is more than one setting, and some have no trial on some fold, or one that did not run to
            the end.
    """
    if planned is not None and not planned:
        raise TrainingError("search: no setting could be trained to the end; take smaller learning rates.")
    planned = planned or plan(search)
    if not planned:
        settings = combinations(search.grid)[0]
        digest = digest_of("choice", VERSION, sorted(settings.items()), search.metric, [])
        return Choice(digest=digest, settings=settings, metric=search.metric, mean=0.0, deviation=0.0, trials=0)
    if missing := left_out(planned, [one for one in trials if one.whole]):
        raise TrainingError(f"search: {len(missing)} of {len(planned)} trials are missing; run the search again.")
    return _choice(trials, search, early)


def left_out(planned: Iterable[Planned], trials: Iterable[Trial]) -> list[Planned]:
    """What was planned and has no trial."""
    there = {(one.setting, one.fold.index) for one in trials}
    return [step for step in planned if (step[0], step[2].index) not in there]


def complete(planned: Sequence[Planned], trials: Sequence[Trial]) -> tuple[list[Trial], list[Planned]]:
    """The trials of settings that were judged on all their folds, and what was planned of these."""
    out = {setting for setting, _, _ in left_out(planned, trials)}
    return [one for one in trials if one.setting not in out], [step for step in planned if step[0] not in out]


def by_setting(trials: Sequence[Trial]) -> list[list[Trial]]:
    """The trials of each setting together, in the order of the settings."""
    return [[one for one in trials if one.setting == place] for place in sorted({one.setting for one in trials})]


def stopped(trials: Sequence[Trial], search: SearchSettings) -> tuple[Stopped, ...]:
    """What is remembered of settings that were stopped early, in their order."""
    return tuple(
        Stopped(
            settings=group[0].settings, epochs=group[0].epochs, planned=group[0].planned,
            mean=mean(one.metrics[search.metric] for one in group),
        )
        for group in by_setting(trials)
    )  # fmt: skip


def _choice(trials: Sequence[Trial], search: SearchSettings, early: Sequence[Trial]) -> Choice:
    sign = -1 if search.metric in LOWER_IS_BETTER else 1
    groups = by_setting(trials)
    scores = [mean(one.metrics[search.metric] for one in group) for group in groups]
    top = max(sign * score for score in scores)
    level = [group for group, score in zip(groups, scores, strict=True) if top - sign * score <= LEVEL]
    won = min(level, key=lambda group: (group[0].parameters, max(one.epochs for one in group), group[0].setting))
    values = [one.metrics[search.metric] for one in won]
    everything = [*trials, *early]
    ordered = sorted((one.setting, one.fold.index, one.digest) for one in everything)
    return Choice(
        digest=digest_of("choice", VERSION, sorted(won[0].settings.items()), search.metric, ordered),
        settings=won[0].settings, metric=search.metric, mean=mean(values),
        deviation=stdev(values) if len(values) > 1 else 0.0, trials=len(everything),
        runs=tuple(one.run for one in everything if one.run), stopped=stopped(early, search),
        outcomes=tuple(one.folder / OUTCOMES for one in sorted(won, key=lambda one: one.fold.index)),
    )  # fmt: skip
