"""The stage that trains one trial of the search, and the fan-out of many trials over a flow's task runner."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefect import task

from agepipe.config.base import changed
from agepipe.config.runtime import Runtime
from agepipe.config.stages import LearnSettings, Metric, SearchSettings
from agepipe.core.errors import DivergedError
from agepipe.core.record import digest_of
from agepipe.data.records import Rows
from agepipe.registry import tracking
from agepipe.search import trial as work
from agepipe.search.progress import in_words, trial_progress
from agepipe.search.records import Fold, Request, Trial, TrialSpec
from agepipe.training.workdir import weights_digest
from tasks.context import parent_of
from tasks.stage import stage
from tasks.track import epochs, tracked

logger = logging.getLogger("agepipe.progress")

STOPPED = "agepipe.stopped"
"""Tag of an MLflow run that was stopped early: its figures cannot be compared with those of complete trainings."""


@stage(
    "search", "trials", version=work.VERSION, run_name="trial {setting} fold {fold.index}", revivals=2, resumes=True,
    not_in_key=("settings", "setting", "paused", "finished"),
)  # fmt: skip
def trial(
    folder: Path, rows: Rows, learn: LearnSettings, settings: dict[str, Any], setting: int, fold: Fold, metric: Metric,
    weights: str, until: int | None, paused: Trial | None, finished: Trial | None, runtime: Runtime,
) -> Trial:  # fmt: skip
    """Train a new network in its own process and evaluate it on the fold that was left out.

    With `until` it pauses after that epoch. With `paused`, the result of the same trial as it paused earlier, it
    continues, and so does its MLflow run. `settings`, which are part of `learn`, and `setting` name the trial.
    """
    name = f"{in_words(settings)} fold {fold.index}"
    key = digest_of(rows, learn, fold, metric, weights)
    params = {"learn": learn, "setting": setting, "fold": fold.index, "folds": fold.count}
    with tracked("trial", name, key, runtime, params, after=paused.run if paused else None) as run:
        run.dataset(rows, "search")
        run.description(
            f"{learn.network} with {in_words(settings)}, from fresh weights, trained on all folds of "
            f"{rows.name} but number {fold.index} of {fold.count}, and judged on that one."
        )
        start = paused.epochs if paused else 0
        progress = trial_progress(progress_folder(runtime), (setting, fold.index), name, start)
        done = work.trial(rows, learn, fold, folder, runtime, epochs(run, progress), metric, until, paused, finished)
        tags = {"epochs": f"{done.epochs} of {done.planned}"}
        run.metrics({**done.metrics, "seconds": done.seconds}, tags=tags)
    return done.model_copy(update={"run": run.run_id})


@task
def stop(trials: Sequence[Trial], runtime: Runtime) -> None:
    """Mark trials that are stopped early in MLflow, and remove their checkpoints."""
    for one in trials:
        tracking.mark(runtime, one.run, {STOPPED: f"after {one.epochs} of {one.planned} epochs"}, parent_of(runtime))
    work.forget(trials)


def progress_folder(runtime: Runtime) -> Path:
    """Where the trials of a search write their epochs."""
    return runtime.workspace / "progress" / (parent_of(runtime) or "alone")


def train(
    request: Request, rows: Rows, learn: LearnSettings, search: SearchSettings, runtime: Runtime,
    watch: Callable[[Sequence[Trial | None]], None],
) -> list[Trial]:  # fmt: skip
    """Train the trials of a request, mapped over the flow's task runner, after stopping those to be stopped.

    A trial whose loss is not finite is left out, with a warning; the other trials continue.

    Args:
        request: trials to train and to stop.
        rows: the development rows.
        learn: settings that all trials share.
        search: metric that decides which epoch is the best.
        runtime: device, workers and folders.
        watch: called now and then with the results in the order of the request, None for those that are missing.
    """
    if request.stop:
        stop(request.stop, runtime)
    paused = {one.id: one for one in request.paused}
    calls = [
        _arguments(spec, request.until, paused.get(spec.id), rows, learn, search, runtime) for spec in request.specs
    ]
    trials = []
    for spec, one in zip(request.specs, trial.gather(calls, watch, (DivergedError,)), strict=True):
        if one is None:
            setting = in_words(spec.settings)
            logger.warning(
                "fold %d: the loss of %s is not finite, so this setting is left out", spec.fold.index, setting
            )
        else:  # another search may have trained it, at another position
            trials.append(one.model_copy(update={"setting": spec.setting, "settings": spec.settings}))
    return trials


def _arguments(
    spec: TrialSpec, until: int | None, paused: Trial | None, rows: Rows, learn: LearnSettings, search: SearchSettings,
    runtime: Runtime,
) -> dict[str, Any]:  # fmt: skip
    """The arguments of `trial`, by name."""
    learn = changed(learn, spec.settings, "search.grid")
    common: dict[str, Any] = {
        "rows": rows, "learn": learn, "settings": spec.settings, "setting": spec.setting, "fold": spec.fold,
        "metric": search.metric, "weights": weights_digest(learn), "paused": paused, "runtime": runtime,
    }  # fmt: skip
    finished = trial.without_prefect.finished(**common, until=None, finished=None) if until else None
    return {**common, "until": until, "finished": finished}
