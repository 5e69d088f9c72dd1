"""The unit of the search: one setting, trained from a fresh network on all folds but one, judged on that one.

Nothing here imports torch; the training happens in a process of its own.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import polars as pl

from agepipe.config.base import combinations
from agepipe.config.runtime import Where
from agepipe.config.stages import LOWER_IS_BETTER, LearnSettings, Metric, SearchSettings
from agepipe.core.artifacts import read_manifest, whole, write_manifest
from agepipe.core.errors import TrainingError
from agepipe.core.record import digest_of
from agepipe.data.records import Rows
from agepipe.data.split import folds
from agepipe.search.gpu_slots import placed
from agepipe.search.records import Fold, Trial
from agepipe.training.job import EpochEvent, Examples, Fitted, Job
from agepipe.training.records import Choice, Stopped
from agepipe.training.warm_start import check_fold
from agepipe.training.workdir import discard, fitting, in_progress, labelled, trial_threads, weights_digest
from agepipe.training.worker import isolated

VERSION = 5
"""Raised when the same rows and settings would train to something else."""

OUTCOMES = "validation.parquet"
"""In a whole trial's folder: `digest`, `label`, and `p0`, `p1`, ... of each row of the fold that was left out."""

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
    rows: Rows, learn: LearnSettings, settings: dict[str, Any], setting: int, fold: Fold, where: Where,
    on_epoch: OnEpoch | None = None, metric: Metric = "macro_recall", until: int | None = None,
) -> Trial:  # fmt: skip
    """Train one setting on all folds but `fold`, or find its finished result; a half-done one goes on.

    With `until` it pauses after that epoch of its whole schedule and keeps its checkpoint, from which a later call
    with more epochs goes on.

    Args:
        rows: the development rows.
        learn: the setting to train, with the values of `settings`.
        settings: the searched fields and their values, by dotted name; the record shows them.
        setting: position of the setting in the grid.
        fold: the fold that is left out of the training and judged.
        where: workspace, device and threads.
        on_epoch: called after each epoch.
        metric: validation figure that the best epoch goes by.
        until: the epoch to pause after; None, or as many as there are, trains to the end.

    Raises:
        ConfigError: there are fewer rows than a batch has.
        TrainingError: the training cannot go on, or its process died.
        DataError: the rows cannot be read.
        LeakageError: the first weights were fitted on rows of the fold.
    """
    digest = digest_of("trial", VERSION, rows, learn, weights_digest(learn), fold, metric)
    folder = where.workspace / "trials" / f"{rows.name or 'rows'}-{digest[:10]}"
    pause = until if until is not None and until < learn.epochs else None
    result = folder if pause is None else folder.with_name(f"{folder.name}-until-{pause}")
    with in_progress(folder) as work:
        if read_manifest(result) is None:
            fitted, (train, validation) = _finished(folder), parts(rows, fold)
            if fitted is None:
                check_fold(learn, validation)
                with placed(where) as gpu:
                    job = Job(
                        folder=work, pixels=rows.pixels, ranges=rows.ranges, learn=learn, metric=metric,
                        train=Examples.of(train), validation=Examples.of(validation),
                        device=where.device, threads=trial_threads(learn, where), gpu=gpu, until=pause,
                    )  # fmt: skip
                    fitted = isolated(fitting, job, on_event=on_epoch)
            if pause is not None:
                fitted = first_epochs(fitted, pause, metric)
            _finish(result, fitted, learn, rows, fold, validation)
    found = read_manifest(result)
    if found is None:
        raise TrainingError(f"{result}: the finished trial cannot be found again; was it removed? Run it again.")
    kept = {name: found["result"][name] for name in ("metrics", "seconds", "epochs", "parameters")}
    return Trial(
        digest=digest if pause is None else digest_of(digest, pause), settings=settings, setting=setting, fold=fold,
        folder=result, planned=learn.epochs, **kept,
    )  # fmt: skip


def _finished(folder: Path) -> Fitted | None:
    """A trial that ran to the end earlier, whose first epochs are then known without training."""
    found = read_manifest(folder)
    if found is None:
        return None
    curves = pl.read_parquet(folder / "curves.parquet").to_dicts()
    kept = {name: found["result"][name] for name in ("metrics", "seconds", "parameters")}
    return Fitted(curves=curves, best=found["result"]["best_epoch"], **kept)


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
        whole = one.folder.name.removesuffix(f"-until-{one.epochs}")
        discard(one.folder.with_name(whole))


def parts(rows: Rows, fold: Fold) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows that a trial learns from, and those that it is judged on."""
    table = labelled(rows)
    assigned = folds(table, fold.count, fold.seed, rows.ranges)
    return table.filter(assigned != fold.index), table.filter(assigned == fold.index)


def _finish(
    folder: Path, fitted: Fitted, learn: LearnSettings, rows: Rows, fold: Fold, validation: pl.DataFrame
) -> None:  # fmt: skip
    with whole(folder) as draft:
        pl.DataFrame(fitted.curves).write_parquet(draft / "curves.parquet")
        if fitted.probabilities is not None:
            said = pl.DataFrame(fitted.probabilities, schema=[f"p{k}" for k in range(len(rows.ranges))])
            validation.select("digest", "label").hstack(said).write_parquet(draft / OUTCOMES)
        write_manifest(
            draft, "trial", learn, {"rows": rows.digest},
            {
                "fold": fold.model_dump(), "metrics": fitted.metrics, "seconds": fitted.seconds,
                "epochs": len(fitted.curves), "best_epoch": fitted.best, "parameters": fitted.parameters,
            },
        )  # fmt: skip


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
