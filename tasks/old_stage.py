"""What every stage shares: a task whose record is found again by its inputs' digests and its own settings.

The key is the stage's name and version, the digests of the records that go in, and the settings; never `Where`.
So a second run computes nothing, in any process, on any day; and a change of one setting recomputes what it
touches and what follows from it. Records lie in `workspace/records`, whatever server watches the run. The paths in them
are relative to the workspace, so that a copied or moved workspace never reads or removes what lies in another.
"""

import inspect
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Generic, ParamSpec, TypeVar

from prefect import Task, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture
from prefect.results import ResultStore

from agepipe.config.runtime import StageName, Where
from agepipe.core.artifacts import MANIFEST, remove
from agepipe.core.errors import AgepipeError, DiedError
from agepipe.core.record import Record, digest_of
from agepipe.training.worker import interrupt
from tasks.stored import RecordStorage

P = ParamSpec("P")
R = TypeVar("R", bound=Record)
Watch = Callable[[Sequence[R | None]], None]

logger = logging.getLogger("agepipe.progress")

LOOK_EVERY = 0.5
"""Seconds between two looks at calls that go on."""


def cache_key(name: str, version: int, arguments: dict[str, Any]) -> str:
    """The key of a stage's record: everything that decides *what* comes out and nothing of *where*."""
    what = sorted((key, value) for key, value in arguments.items() if not isinstance(value, Where))
    return f"{name}-{digest_of(name, version, *(part for pair in what for part in pair))}"


class Stage(Generic[P, R]):
    """A cached Prefect task that trusts a stored record only while the files that it points to are there."""

    def __init__(self, body: Callable[P, R], name: StageName, version: int, run_name: str, revivals: int) -> None:
        self.name, self.version = name, version
        self.signature = inspect.signature(body)
        self.task: Task[P, R] = task(
            task_run_name=run_name,
            tags=[f"stage:{name}"],
            cache_key_fn=lambda _, arguments: cache_key(name, version, arguments),
            persist_result=True,
            result_serializer="json",
            retries=revivals,
            retry_condition_fn=_died,
        )(_anew(body, name))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The stage's record, from its store or computed now."""
        return self._prepared(args, kwargs)(*args, **kwargs).resolved_in(_where(args, kwargs).workspace)

    def gather(
        self, calls: Iterable[dict[str, Any]], watch: Watch[R] | None = None,
        forgive: tuple[type[AgepipeError], ...] = (),
    ) -> list[R]:  # fmt: skip
        """The records of many calls, mapped over the flow's task runner; all end before the first error is raised.

        Args:
            calls: the arguments of each, by name.
            watch: called now and then, and as each call ends, with the records so far: None for what goes on or failed.
            forgive: calls that fail in one of these ways are left out of the answer.
        """
        calls = list(calls)
        workspaces = [_where((), call).workspace for call in calls]
        futures = [self._prepared((), call).submit(**call) for call in calls]
        try:
            if watch is not None:
                _watch(futures, workspaces, watch)
            for future in futures:
                future.wait()
        except BaseException as error:
            if not isinstance(error, Exception):  # a signal, of which those that compute know nothing
                interrupt()
            raise
        records = []
        for future, workspace in zip(futures, workspaces, strict=True):
            with suppress(*forgive):
                records.append(future.result().resolved_in(workspace))
        return records

    def _prepared(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Task[P, R]:
        arguments = self.signature.bind(*args, **kwargs).arguments
        where = _where((), arguments)
        storage = RecordStorage(basepath=str(where.workspace / "records"))
        kept = self._stored(storage, arguments, where.workspace)
        # a record of a version that stored absolute paths may lead into the workspace that this one was copied from
        stored = kept if kept is not None and kept.lies_in(where.workspace) else None
        since_begun = stored is not None and where.begun is not None and not _older(stored, where.begun)
        wanted_anew = where.refreshes(self.name) and not since_begun
        if stored is not None and wanted_anew:
            discard(stored, where.workspace)
        stale = wanted_anew or (kept is not None and (stored is None or not stored.intact()))
        prepared = self.task.with_options(refresh_cache=stale)
        prepared.result_storage = storage  # `with_options` takes a block only once a server has saved it
        return prepared

    def _stored(self, storage: RecordStorage, arguments: dict[str, Any], workspace: Path) -> R | None:
        key = cache_key(self.name, self.version, arguments)
        store = ResultStore(result_storage=storage)
        if not store.exists(key):
            return None
        record: R = store.read(key).result
        return record.resolved_in(workspace)


def _where(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Where:
    return next(value for value in (*args, *kwargs.values()) if isinstance(value, Where))


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
    name: StageName, *, version: int, run_name: str | None = None, revivals: int = 0
) -> Callable[[Callable[P, R]], Stage[P, R]]:
    """Make a function of records and settings a stage.

    Args:
        name: what the user calls it.
        version: raised when what it computes changes.
        run_name: of its Prefect runs.
        revivals: how often a call whose process has died is made again, to go on from its checkpoint.
    """
    return lambda body: Stage(body, name, version, run_name or name, revivals)


def _died(_: Task[P, R], __: TaskRun, state: State[R]) -> bool:
    """Whether a call failed because its process has died; asked only where it may be made again."""
    error = state.result(raise_on_failure=False)
    if isinstance(error, DiedError):
        logger.warning("%s It goes on from its last checkpoint.", error)
    return isinstance(error, DiedError)


def _anew(body: Callable[P, R], name: StageName) -> Callable[P, R]:
    """Wrap the stage so that `--refresh` recomputes a cached result.

    The library finds a finished folder by itself; a stage whose record is gone cannot know that folder before.
    """

    @wraps(body)
    def made(*args: P.args, **kwargs: P.kwargs) -> R:
        where = _where(args, kwargs)
        begun = where.begun if where.begun is not None else time.time()
        record = body(*args, **kwargs)
        if where.refreshes(name) and _older(record, begun):
            discard(record, where.workspace)
            record = body(*args, **kwargs)
        return record.relative_to(where.workspace)

    return made


def _older(record: Record, moment: float) -> bool:
    """Whether the record's folder was finished before the moment (seconds since 1970; a file's time may lag a bit)."""
    home = record.home()
    return home is not None and (home / MANIFEST).exists() and (home / MANIFEST).stat().st_mtime < moment - 0.1


def discard(record: Record, workspace: Path) -> None:
    """Remove what a stage made in its workspace, so that it is made anew.

    Raises:
        DataError: it lies outside the workspace.
    """
    if (home := record.home()) is not None:
        remove(home, workspace)


__all__ = ["Stage", "cache_key", "discard", "stage"]
