"""Where the trials of a search run at a time: threads here, processes here, or the workers of a Dask cluster.

Each trial trains in a process of its own whatever the runner, so a runner decides where trials wait, not what comes
out. Threads cost least. Processes keep the work of one trial (the store, the tracking) from another's. Dask reaches
other machines, which must see the workspace, the tracking store and Prefect's server under the same names.
"""

import sys
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from typing import Any

from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from agepipe.config.runtime import Runtime


@contextmanager
def runner(runtime: Runtime) -> Iterator[TaskRunner[Any]]:
    """The runner that `runtime` asks for, with as many trials at a time as it says; made ready while the block runs."""
    with ExitStack() as ready:
        if runtime.runner == "threads":
            yield ThreadPoolTaskRunner(max_workers=runtime.trial_count)
            return
        ready.enter_context(_one_server())
        if runtime.runner == "processes":
            yield ProcessPoolTaskRunner(max_workers=runtime.trial_count)
        else:
            ready.enter_context(_free_workers())
            yield _dask(runtime)


def deaths() -> tuple[type[Exception], ...]:
    """What a runner raises when workers of its own have died: Dask only after it has replaced one several times."""
    dask = sys.modules.get("distributed")
    return (BrokenProcessPool, *([dask.KilledWorker] if dask else []))


@contextmanager
def _one_server() -> Iterator[None]:
    """Tell other processes where Prefect's server is: each would otherwise start a temporary one of its own."""
    run = FlowRunContext.get()
    if run is None or PREFECT_API_URL.value():
        yield
        return
    with temporary_settings({PREFECT_API_URL: str(run.client.api_url).rstrip("/")}):
        yield


@contextmanager
def _free_workers() -> Iterator[None]:
    """Let Dask's workers have children, which the process of a training is."""
    import dask

    with dask.config.set({"distributed.worker.daemon": False}):
        yield


def _dask(runtime: Runtime) -> TaskRunner[Any]:
    from prefect_dask.task_runners import DaskTaskRunner

    if runtime.scheduler:
        return DaskTaskRunner(address=runtime.scheduler)
    return DaskTaskRunner(
        cluster_kwargs={"n_workers": runtime.trial_count, "threads_per_worker": 1, "dashboard_address": None}
    )
