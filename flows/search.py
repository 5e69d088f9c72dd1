"""The flow that tries settings: a flow of its own, so that its trials fan out over the runner it is given."""

from typing import Any

from prefect import flow
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from agepipe.config import LearnSettings, SearchSettings, Where
from agepipe.learn.runs import weights_digest
from agepipe.learn.trial import choose, plan
from agepipe.records import Choice, Rows
from agepipe.settings import changed
from tasks.trial import trial


@flow(name="search", flow_run_name="search over {settings.folds} folds")
def _search(rows: Rows, learn: LearnSettings, settings: SearchSettings, where: Where) -> Choice:
    calls = [
        {
            "rows": rows,
            "learn": learn,
            "settings": changes,
            "setting": setting,
            "fold": fold,
            "metric": settings.metric,
            "weights": weights_digest(changed(learn, changes)),
            "where": where,
        }
        for setting, changes, fold in plan(learn, settings)
    ]
    return choose(trial.gather(calls), settings, learn)


def search(rows: Rows, learn: LearnSettings, settings: SearchSettings, where: Where) -> Choice:
    """Train every setting on every fold, each from a fresh network, and choose the best by its mean over folds.

    Each trial is a process that a thread waits for, so there are as many threads as trials at a time.
    """
    runner: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=where.worker_count)
    return _search.with_options(task_runner=runner)(rows, learn, settings, where)
