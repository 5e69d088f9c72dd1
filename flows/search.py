"""The flow of the search: a flow of its own, because its trials are mapped over a task runner that is chosen."""

from contextlib import closing

from prefect import flow

from agepipe.config.runtime import Runtime
from agepipe.config.search import check_installed
from agepipe.config.stages import LearnSettings, SearchSettings
from agepipe.data.records import Rows
from agepipe.search.progress import SearchProgress
from agepipe.search.records import Request, Trial
from agepipe.search.strategies import run, strategy
from agepipe.training.records import Choice
from agepipe.training.worker import resume
from flows.beginning import begin
from flows.cluster import check_weights
from flows.runners import surviving
from flows.table import SearchDisplay
from tasks.trial import progress_folder, train


@flow(name="search", flow_run_name="search over {settings.folds} folds", on_running=[begin])
def _search(rows: Rows, learn: LearnSettings, settings: SearchSettings, runtime: Runtime) -> Choice:
    with closing(SearchProgress(settings, learn, progress_folder(runtime), SearchDisplay().show)) as progress:

        def trained(request: Request) -> list[Trial]:
            progress.begin(request)
            trials = train(request, rows, learn, settings, runtime, progress.update)
            progress.end()
            return trials

        return run(strategy(rows, learn, settings, runtime), trained)


def search(rows: Rows, learn: LearnSettings, settings: SearchSettings, runtime: Runtime) -> Choice:
    """Train settings on every fold, each trial from a fresh network, and choose the best by its mean over folds.

    Raises:
        ConfigError: a rung is not below the epochs of a trial, the package of the strategy is not installed, or the
            workers of a Dask scheduler do not see the file of the initial weights.
        TrainingError: no setting could be trained to the end.
        WorkerError: workers of the runner died in each of `ATTEMPTS`, or one of a Dask scheduler lacks something.
    """
    settings.check_rungs(learn.epochs)
    check_installed(settings)
    check_weights(learn, settings, runtime)
    try:
        return surviving(
            runtime, "take fewer --workers or a smaller learn.batch",
            lambda ready: _search.with_options(task_runner=ready)(rows, learn, settings, runtime),
        )  # fmt: skip
    finally:
        resume()  # after a signal: all trials that it interrupted have ended by now
