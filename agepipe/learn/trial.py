"""The unit of the search: one setting, trained from a fresh network on all folds but one, judged on that one.

Nothing here imports torch; the training happens in a process of its own.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import polars as pl

from agepipe.artifact import read_manifest, whole, write_manifest
from agepipe.config import LOWER_IS_BETTER, LearnSettings, Metric, SearchSettings, Where
from agepipe.data.split import folds
from agepipe.errors import TrainingError
from agepipe.learn.job import EpochEvent, Examples, Fitted, Job
from agepipe.learn.process import isolated
from agepipe.learn.runs import fitting, in_progress, labelled, weights_digest
from agepipe.records import Choice, Fold, Rows, Trial, digest_of
from agepipe.settings import changed, combinations

VERSION = 2
"""Raised when the same rows and settings would train to something else."""

LEVEL = 1e-12
"""Means that differ by less are a tie."""

OnEpoch = Callable[[EpochEvent], None]


def plan(learn: LearnSettings, search: SearchSettings) -> list[tuple[int, dict[str, Any], Fold]]:
    """Every setting of the grid on every fold; nothing when there is only one setting, for then nothing is chosen.

    Raises:
        ConfigError: a value of the grid is not allowed.
    """
    settings = combinations(search.grid)
    for one in settings:
        changed(learn, one, "search.grid")
    if len(settings) == 1:
        return []
    parts = [Fold(index=index, count=search.folds, seed=search.seed) for index in range(search.folds)]
    return [(position, one, fold) for position, one in enumerate(settings) for fold in parts]


def trial(
    rows: Rows, learn: LearnSettings, settings: dict[str, Any], setting: int, fold: Fold, where: Where,
    on_epoch: OnEpoch | None = None, metric: Metric = "macro_recall",
) -> Trial:  # fmt: skip
    """Train one setting on all folds but `fold`, or find its finished result; a half-done one goes on.

    Args:
        rows: the development rows.
        learn: the base of every trial.
        settings: what this trial changes in it, by dotted name.
        setting: position of the setting in the grid.
        fold: the fold that is left out of the training and judged.
        where: workspace, device and threads.
        on_epoch: called after each epoch.
        metric: validation figure that the best epoch goes by.

    Raises:
        ConfigError: a setting is not allowed.
        TrainingError: the training cannot go on, or its process died.
        DataError: the rows cannot be read.
    """
    learn = changed(learn, settings, "search.grid")
    digest = digest_of("trial", VERSION, rows, learn, weights_digest(learn), fold, metric)
    folder = where.workspace / "trials" / f"{rows.name or 'rows'}-{digest[:10]}"
    with in_progress(folder) as work:
        if read_manifest(folder) is None:
            job = _job(rows, learn, fold, metric, work, where)
            _finish(folder, isolated(fitting, job, on_event=on_epoch), learn, rows, fold)
    found = read_manifest(folder)
    if found is None:
        raise TrainingError(f"{folder}: the finished trial cannot be found again; was it removed? Run it again.")
    kept = {name: found["result"][name] for name in ("metrics", "seconds", "epochs", "parameters")}
    return Trial(digest=digest, settings=settings, setting=setting, fold=fold, folder=folder, **kept)


def _job(rows: Rows, learn: LearnSettings, fold: Fold, metric: Metric, work: Path, where: Where) -> Job:
    table = labelled(rows)
    assigned = folds(table, fold.count, fold.seed, rows.ranges)
    return Job(
        folder=work, pixels=rows.pixels, ranges=rows.ranges, learn=learn, metric=metric,
        train=Examples.of(table.filter(assigned != fold.index)),
        validation=Examples.of(table.filter(assigned == fold.index)),
        device=where.device, threads=where.trial_threads,
    )  # fmt: skip


def _finish(folder: Path, fitted: Fitted, learn: LearnSettings, rows: Rows, fold: Fold) -> None:
    with whole(folder) as draft:
        pl.DataFrame(fitted.curves).write_parquet(draft / "curves.parquet")
        write_manifest(
            draft, "trial", learn, {"rows": rows.digest},
            {
                "fold": fold.model_dump(), "metrics": fitted.metrics, "seconds": fitted.seconds,
                "epochs": len(fitted.curves), "best_epoch": fitted.best, "parameters": fitted.parameters,
            },
        )  # fmt: skip


def choose(trials: Sequence[Trial], search: SearchSettings, learn: LearnSettings) -> Choice:
    """The setting with the best mean over folds.

    Ties go to the cheaper: fewer parameters, then fewer epochs, then the earlier in the grid. Never to the faster on
    the clock, which would choose differently on another day.

    Raises:
        TrainingError: there is more than one setting, and some have no trial on some fold.
    """
    planned = plan(learn, search)
    if not planned:
        settings = combinations(search.grid)[0]
        digest = digest_of("choice", VERSION, sorted(settings.items()), search.metric, [])
        return Choice(digest=digest, settings=settings, metric=search.metric, mean=0.0, deviation=0.0, trials=0)
    missing = {(place, fold.index) for place, _, fold in planned} - {(one.setting, one.fold.index) for one in trials}
    if missing:
        raise TrainingError(f"search: {len(missing)} of {len(planned)} trials are missing; run the search again.")
    return _choice(trials, search)


def _choice(trials: Sequence[Trial], search: SearchSettings) -> Choice:
    sign = -1 if search.metric in LOWER_IS_BETTER else 1
    groups = [[one for one in trials if one.setting == place] for place in sorted({one.setting for one in trials})]
    scores = [mean(one.metrics[search.metric] for one in group) for group in groups]
    top = max(sign * score for score in scores)
    level = [group for group, score in zip(groups, scores, strict=True) if top - sign * score <= LEVEL]
    won = min(level, key=lambda group: (group[0].parameters, max(one.epochs for one in group), group[0].setting))
    values = [one.metrics[search.metric] for one in won]
    ordered = sorted((one.setting, one.fold.index, one.digest) for one in trials)
    return Choice(
        digest=digest_of("choice", VERSION, sorted(won[0].settings.items()), search.metric, ordered),
        settings=won[0].settings, metric=search.metric, mean=mean(values),
        deviation=stdev(values) if len(values) > 1 else 0.0, trials=len(trials),
        runs=tuple(one.run for one in trials if one.run),
    )  # fmt: skip
