"""What every stage shares: a task whose record is found again by its inputs' digests and its own settings.

The key is the stage's name and version, the digests of the records that go in, and the settings; never `Where`.
So a second run computes nothing, in any process, on any day; and a change of one setting recomputes what it
touches and what follows from it. Records lie in `workspace/records`, whatever server watches the run.
"""

import inspect
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import wraps
from queue import Empty, SimpleQueue
from typing import Any, Generic, ParamSpec, TypeVar

from prefect import Task, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture
from prefect.results import ResultStore

from agepipe.artifact import MANIFEST
from agepipe.errors import AgepipeError, DiedError
from agepipe.record import Record, digest_of
from agepipe.where import StageName, Where
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
        return self._prepared(args, kwargs)(*args, **kwargs)

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
        futures = [self._prepared((), call).submit(**call) for call in calls]
        if watch is not None:
            _watch(futures, watch)
        for future in futures:
            future.wait()
        records = []
        for future in futures:
            with suppress(*forgive):
                records.append(future.result())
        return records

    def _prepared(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Task[P, R]:
        arguments = self.signature.bind(*args, **kwargs).arguments
        where = next(value for value in arguments.values() if isinstance(value, Where))
        storage = RecordStorage(basepath=str(where.workspace / "records"))
        stored = self._stored(storage, arguments)
        since_begun = stored is not None and where.begun is not None and not _older(stored, where.begun)
        wanted_anew = where.refreshes(self.name) and not since_begun
        if stored is not None and wanted_anew:
            discard(stored)
        stale = wanted_anew or (stored is not None and not stored.intact())
        prepared = self.task.with_options(refresh_cache=stale)
        prepared.result_storage = storage  # `with_options` takes a block only once a server has saved it
        return prepared

    def _stored(self, storage: RecordStorage, arguments: dict[str, Any]) -> R | None:
        key = cache_key(self.name, self.version, arguments)
        store = ResultStore(result_storage=storage)
        if not store.exists(key):
            return None
        record: R = store.read(key).result
        return record


def _watch(futures: Sequence[PrefectFuture[R]], watch: Watch[R]) -> None:
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
            records[place] = futures[place].result()
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
    """The same function, which makes what it only found again anew where that is wanted.

    The library finds a finished folder by itself; a stage whose record is gone cannot know that folder before.
    """

    @wraps(body)
    def made(*args: P.args, **kwargs: P.kwargs) -> R:
        where = next((value for value in (*args, *kwargs.values()) if isinstance(value, Where)), None)
        begun = where.begun if where is not None and where.begun is not None else time.time()
        record = body(*args, **kwargs)
        if where is None or not where.refreshes(name) or not _older(record, begun):
            return record
        discard(record)
        return body(*args, **kwargs)

    return made


def _older(record: Record, moment: float) -> bool:
    """Whether the record's folder was finished before the moment (seconds since 1970; a file's time may lag a bit)."""
    home = record.home()
    return home is not None and (home / MANIFEST).exists() and (home / MANIFEST).stat().st_mtime < moment - 0.1


def discard(record: Record) -> None:
    """Remove what a stage made, so that it is made anew."""
    if (home := record.home()) is not None:
        shutil.rmtree(home, ignore_errors=True)


__all__ = ["Stage", "cache_key", "discard", "stage"]
