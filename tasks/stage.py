"""The Prefect task of a stage, around a function whose results `tasks.cache` caches in the workspace.

Prefect stores the same record under the same key in `workspace/records`, whichever server it runs on, and shows a
cached state when it finds the record there.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from prefect import Task, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture
from prefect.results import ResultStore
from prefect.runtime import flow_run

from agepipe.config.runtime import Runtime, StageName
from agepipe.core.artifacts import remove
from agepipe.core.errors import AgepipeError, DiedError
from agepipe.core.record import Record
from agepipe.training.worker import interrupt
from tasks.cache import Cached, cached, runtime_of, usable
from tasks.elsewhere import on_this_machine
from tasks.stored import RecordStorage

P = ParamSpec("P")
R = TypeVar("R", bound=Record)
Watch = Callable[[Sequence[R | None]], None]

logger = logging.getLogger("agepipe.progress")

LOOK_EVERY = 0.5
"""Seconds between two progress updates while calls run."""

_refreshed: set[tuple[str | None, Path]] = set()
"""Folders that `--refresh` has removed, each with the flow run that did."""


class Stage(Generic[P, R]):
    """A Prefect task that uses a stored record only if the files that it names exist.

    It has no tags, because Prefect asks the server for a concurrency limit of each before a tagged task runs.
    """

    def __init__(self, body: Cached[P, R], run_name: str = "", revivals: int = 0) -> None:
        self.without_prefect = body
        """The same function without Prefect, for commands that start no server."""
        self.name, self.signature = body.name, body.signature
        self.task: Task[P, R] = task(
            task_run_name=run_name or body.name,
            cache_key_fn=lambda _, arguments: body.key(arguments),
            persist_result=True,
            result_serializer="json",
            retries=revivals,
            retry_condition_fn=_died,
        )(_stored(body))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The stage's record, cached or computed now."""
        return self._prepared(args, kwargs)(*args, **kwargs).resolved_in(_runtime(args, kwargs).workspace)

    def gather(
        self, calls: Iterable[dict[str, Any]], watch: Watch[R] | None = None,
        forgive: tuple[type[AgepipeError], ...] = (),
    ) -> list[R | None]:  # fmt: skip
        """Map calls over the task runner of the flow; all calls end before the first error is raised.

        Args:
            calls: arguments of each call, by name.
            watch: called regularly and after each call, with the records so far; None for calls that run or failed.
            forgive: error classes; a call that raises one of them has None in the result.
        """
        calls = list(calls)
        runtimes = [_runtime((), call) for call in calls]
        futures = [self._prepared((), call).submit(**call) for call in calls]
        try:
            if watch is not None:
                _watch(futures, [runtime.workspace for runtime in runtimes], watch)
            for future in futures:
                future.wait()
        except BaseException as error:
            if not isinstance(error, Exception):  # a signal, which the computing processes do not receive
                interrupt()
            raise
        records: list[R | None] = [None] * len(calls)
        for place, (future, runtime) in enumerate(zip(futures, runtimes, strict=True)):
            with suppress(*forgive):
                records[place] = record = future.result().resolved_in(runtime.workspace)
                runtime.mirror.fetch(record)  # a Dask worker on another machine made it
        return records

    def _prepared(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Task[P, R]:
        arguments = self.signature.bind(*args, **kwargs).arguments
        runtime = _runtime((), arguments)
        storage = RecordStorage.of(runtime)
        stale = self._removed(arguments, runtime) or self._stored(storage, arguments, runtime.workspace) is None
        prepared = self.task.with_options(refresh_cache=stale)
        prepared.result_storage = storage  # `with_options` accepts a block only after a server has saved it
        return prepared

    def _removed(self, arguments: Mapping[str, Any], runtime: Runtime) -> bool:
        """Remove a result that `--refresh` names, once per flow run, so a restarted search keeps its new trials."""
        if not runtime.refreshes(self.name):
            return False
        folder = self.without_prefect.folder(arguments)
        once = (flow_run.root_flow_run_id, folder)
        if once in _refreshed:
            return False
        runtime.mirror.remove(folder)
        remove(folder, runtime.workspace)
        _refreshed.add(once)
        return True

    def _stored(self, storage: RecordStorage, arguments: Mapping[str, Any], workspace: Path) -> R | None:
        key = self.without_prefect.key(arguments)
        store = ResultStore(result_storage=storage)
        if not store.exists(key):
            return None
        record: R = store.read(key).result
        return usable(record.resolved_in(workspace), workspace)


def _stored(body: Cached[P, R]) -> Callable[P, R]:
    """The function of the Prefect task, whose stored records have paths relative to the workspace."""

    @wraps(body.body)
    def made(*args: P.args, **kwargs: P.kwargs) -> R:
        arguments = on_this_machine(body.signature.bind(*args, **kwargs).arguments)
        if (runtime := runtime_of(arguments.values())).scheduler:
            runtime.mirror.forget(body.folder(arguments))
        record = body(**arguments)  # type: ignore[call-arg]  # the same names, which the type does not know
        return record.relative_to(runtime.workspace)

    made.__signature__ = body.signature  # type: ignore[attr-defined]  # without the folder, which is not an argument of the task
    return made


def _runtime(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Runtime:
    return runtime_of((*args, *kwargs.values()))


def _watch(futures: Sequence[PrefectFuture[R]], workspaces: Sequence[Path], watch: Watch[R]) -> None:
    ended: SimpleQueue[int] = SimpleQueue()
    records: list[R | None] = [None] * len(futures)
    for place, future in enumerate(futures):
        future.add_done_callback(lambda _, place=place: ended.put(place))  # type: ignore[misc]
    left = len(futures)
    while left:
        try:
            place = ended.get(timeout=LOOK_EVERY)
        except Empty:
            watch(records)
            continue
        left -= 1
        futures[place].wait()
        if futures[place].state.is_completed():
            records[place] = futures[place].result().resolved_in(workspaces[place])
        watch(records)


def stage(
    name: StageName,
    kind: str,
    *,
    version: int,
    run_name: str | None = None,
    revivals: int = 0,
    resumes: bool = False,
    not_in_key: tuple[str, ...] = (),
) -> Callable[[Callable[Concatenate[Path, P], R]], Stage[P, R]]:
    """Make a stage of a function that fills a folder from records and settings.

    Args:
        name: name of the stage, as users write it.
        kind: folder in the workspace that holds its results.
        version: raised when what it computes changes.
        run_name: name of its Prefect task runs.
        revivals: how often a call whose process has died is repeated, continuing from its checkpoint.
        resumes: whether the next call continues in the folder of an interrupted one; otherwise that is removed.
        not_in_key: names of arguments that do not change the result.
    """
    keep = cached(name, kind, version=version, resumes=resumes, not_in_key=not_in_key)
    return lambda body: Stage(keep(body), run_name or name, revivals)


def _died(_: Task[P, R], __: TaskRun, state: State[R]) -> bool:
    """Whether a call failed because its process has died."""
    error = state.result(raise_on_failure=False)
    if isinstance(error, DiedError):
        logger.warning("%s It continues from its last checkpoint.", error)
    return isinstance(error, DiedError)
