"""The task runners of a search: threads or processes of this machine, or the workers of a Dask cluster.

Each trial trains in a process of its own with any runner, so the runner decides where a trial waits for that process,
never what it computes. Threads cost least. Processes separate the reading and the tracking of one trial from those of
another. Dask reaches other machines, which must see the workspace (a bucket, or a folder with the same path), the
tracking store and Prefect's server under the same names.
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
from flows import cluster


@contextmanager
def runner(runtime: Runtime) -> Iterator[TaskRunner[Any]]:
    """The task runner that `runtime` selects, for `runtime.trial_count` trials at a time, while the block runs."""
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
    """The errors of a runner whose workers died; Dask raises one only after it has replaced a worker several times."""
    dask = sys.modules.get("distributed")
    return (BrokenProcessPool, *([dask.KilledWorker] if dask else []))


@contextmanager
def _one_server() -> Iterator[None]:
    """Pass the address of Prefect's server to other processes, each of which would otherwise start a temporary one."""
    run = FlowRunContext.get()
    if run is None or PREFECT_API_URL.value():
        yield
        return
    with temporary_settings({PREFECT_API_URL: str(run.client.api_url).rstrip("/")}):
        yield


@contextmanager
def _free_workers() -> Iterator[None]:
    """Allow Dask's workers to have child processes: a training runs in one."""
    import dask

    with dask.config.set({"distributed.worker.daemon": False}):
        yield


def _dask(runtime: Runtime) -> TaskRunner[Any]:
    from prefect_dask.task_runners import DaskTaskRunner

    if runtime.scheduler:
        cluster.check(runtime, PREFECT_API_URL.value() or "")
        return DaskTaskRunner(address=runtime.scheduler)
    return DaskTaskRunner(
        cluster_kwargs={"n_workers": runtime.trial_count, "threads_per_worker": 1, "dashboard_address": None}
    )
