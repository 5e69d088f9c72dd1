"""The stage that trains one setting on all folds but one: the unit that the search repeats."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import task

from agepipe.config.runtime import Runtime
from agepipe.config.stages import LearnSettings, Metric
from agepipe.core.record import digest_of
from agepipe.data.records import Rows
from agepipe.registry import tracking
from agepipe.search import trial as work
from agepipe.search.progress import in_words
from agepipe.search.records import Fold, Trial
from tasks.board import watch_trial
from tasks.context import parent_of
from tasks.stage import stage
from tasks.track import epochs, tracked

STOPPED = "agepipe.stopped"
"""Tag of an MLflow run that halving stopped early: its figures do not compare with those of whole trainings."""


@stage(
    "search", "trials", version=work.VERSION, run_name="trial {setting} fold {fold.index}", revivals=2, resumes=True,
    not_in_key=("settings", "setting", "before", "whole"),
)  # fmt: skip
def trial(
    folder: Path, rows: Rows, learn: LearnSettings, settings: dict[str, Any], setting: int, fold: Fold, metric: Metric,
    weights: str, until: int | None, before: Trial | None, whole: Trial | None, runtime: Runtime,
) -> Trial:  # fmt: skip
    """Train a fresh network in a process of its own and judge it on the fold that was left out.

    With `until` it pauses after that epoch; with `before`, the same trial as it was paused, its MLflow run goes on.
    `settings`, which `learn` has already, and `setting` are what the search calls it by.
    """
    name = f"{in_words(settings)} fold {fold.index}"
    key = digest_of(rows, learn, fold, metric, weights)
    params = {"learn": learn, "setting": setting, "fold": fold.index, "folds": fold.count}
    with tracked("trial", name, key, runtime, params, after=before.run if before else None) as run:
        run.dataset(rows, "search")
        run.description(
            f"{learn.network} with {in_words(settings)}, from fresh weights, trained on all folds of "
            f"{rows.name} but number {fold.index} of {fold.count}, and judged on that one."
        )
        progress = watch_trial(runtime, (setting, fold.index), name, before.epochs if before else 0)
        done = work.trial(rows, learn, fold, folder, runtime, epochs(run, progress), metric, until, before, whole)
        run.metrics({**done.metrics, "seconds": done.seconds})
        run.tags({"epochs": f"{done.epochs} of {done.planned}"})
    return done.model_copy(update={"run": run.run_id})


@task
def stop(trials: Sequence[Trial], runtime: Runtime) -> None:
    """Mark trials that halving has stopped in MLflow, and remove their checkpoints."""
    for one in trials:
        tracking.mark(runtime, one.run, {STOPPED: f"after {one.epochs} of {one.planned} epochs"}, parent_of(runtime))
    work.forget(trials)
