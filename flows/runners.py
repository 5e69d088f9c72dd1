"""The task runners of a search and of many predictions: threads or processes, or the workers of a Dask cluster.

Each trial trains in a process of its own with any runner, so the runner decides where a trial waits for that process,
never what it computes. Threads cost least. Processes separate the reading and the tracking of one trial from those of
another. Dask reaches other machines, which must see the workspace (a bucket, or a folder with the same path), the
tracking store and Prefect's server under the same names.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from agepipe.config.runtime import Runtime
from agepipe.core.errors import WorkerError
from flows import cluster

T = TypeVar("T")
logger = logging.getLogger("agepipe.progress")

ATTEMPTS = 3
"""Attempts, each with new workers, before work whose workers die fails; finished results are not repeated."""


def surviving(runtime: Runtime, remedy: str, work: Callable[[TaskRunner[Any]], T]) -> T:
    """Do work on the runner that `runtime` selects, again with new workers if its workers die.

    Args:
        runtime: runner and workers.
        remedy: what to change if memory has run out.
        work: a flow that continues where an earlier call of it was interrupted.

    Raises:
        WorkerError: workers died in each of `ATTEMPTS`, or one of a Dask scheduler lacks something.
    """
    attempts = ATTEMPTS
    while True:
        try:
            with runner(runtime) as ready:
                return work(ready)
        except deaths() as error:
            attempts -= 1
            if attempts == 0:
                raise WorkerError(
                    f"runner: workers of '{runtime.runner}' died in {ATTEMPTS} tries; if memory has run out, {remedy}, "
                    "then give the same command again."
                ) from error
            logger.warning("a worker has died; the work continues with new ones")


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
