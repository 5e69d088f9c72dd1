"""The stage that trains one setting on all folds but one: the unit that the search repeats."""

from typing import Any

from agepipe.config import LearnSettings, Metric, Where
from agepipe.learn import trial as work
from agepipe.records import Fold, Rows, Trial, digest_of
from agepipe.settings import changed
from tasks.stage import stage
from tasks.track import epochs, tracked
from tasks.watch import watch


@stage("search", version=2, run_name="trial {setting} fold {fold.index}")
def trial(
    rows: Rows, learn: LearnSettings, settings: dict[str, Any], setting: int, fold: Fold, metric: Metric,
    weights: str, where: Where,
) -> Trial:  # fmt: skip
    """Train a fresh network in a process of its own and judge it on the fold that was left out."""
    name = f"{', '.join(f'{field}={value}' for field, value in settings.items())} fold {fold.index}"
    key = digest_of(rows, learn, sorted(settings.items()), fold, metric, weights)
    params = {"learn": changed(learn, settings), "setting": setting, "fold": fold.index, "folds": fold.count}
    with tracked("trial", name, key, where, params) as run:
        run.dataset(rows, "search")
        done = work.trial(rows, learn, settings, setting, fold, where, epochs(run, watch(name)), metric)
        run.metrics({**done.metrics, "seconds": done.seconds})
    return done.model_copy(update={"run": run.run_id})
