"""Work in a process of its own, so that the caller never imports torch and no two trainings share random state.

A fork server imports torch and what judges once; each piece of work is then a fork of it, there in milliseconds. The
work's process sends events and its result through a pipe, and ends when its parent dies, however that died.
"""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

from agepipe.core.errors import AgepipeError, DiedError, TrainingError, WorkerError
from agepipe.core.system_errors import full_disk

T = TypeVar("T")

PRELOAD = ["agepipe.training.ignore_signals", "agepipe.training.loop"]
"""What the fork server imports once for all work. The first keeps it and all work from signals that are meant for the
parent."""

GRACE = 3.0
"""Seconds in which the others' last words may still show which failure came first."""

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "5000"}
"""How the threads of one training wait for each other; the second is read by libgomp, which torch uses on Linux."""

_starting = threading.Lock()
_interrupted = threading.Event()


def isolated(function: Callable[..., T], *args: Any, on_event: Callable[[Any], None] | None = None) -> T:
    """Run a module-level function in a fresh process and wait for it; many threads may do so at once.

    Args:
        function: with `on_event` given, it is called with a keyword `on_event` of its own to send events through.
        args: picklable arguments; the result and events must be picklable as well.
        on_event: called in this process with each event, in order.

    Raises:
        AgepipeError: of the function, as its own class with its message.
        WorkerError: any other exception of the function.
        DiedError: the process ended without a result.
        KeyboardInterrupt: `interrupt` was called meanwhile.
    """
    return together(function, [args], on_event)


def together(
    function: Callable[..., T], places: Sequence[tuple[Any, ...]], on_event: Callable[[Any], None] | None = None
) -> T:  # fmt: skip
    """As `isolated`, in several processes at a time that work on one thing, each with arguments of its own.

    Result, events and logs are those of the first. When one fails, all are ended.

    Raises:
        AgepipeError: as `isolated`; of several failures, the one that the others follow from.
    """
    if multiprocessing.current_process().daemon:
        raise WorkerError(
            "runner: this Dask worker may have no children, so it cannot train; start it with the environment variable "
            "DASK_DISTRIBUTED__WORKER__DAEMON=False."
        )
    works: dict[Connection, ForkServerProcess] = {}
    try:
        for args in places:
            reader, writer = multiprocessing.get_context("forkserver").Pipe(duplex=False)
            works[reader] = _start(writer, function, args, events=on_event is not None)
        return _listen(works, on_event)  # type: ignore[no-any-return]
    finally:
        for reader, process in works.items():
            reader.close()
            if process.is_alive():
                process.kill()
        for process in works.values():
            process.join()


def warm() -> None:
    """Start the fork server now, without waiting for its imports: its first work would otherwise wait for them."""
    with _starting, _without_main(), _patient_threads():
        multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOAD)
        forkserver.ensure_running()


def interrupt() -> None:
    """End all work that threads and processes of this process wait for, and refuse new work until `resume`.

    A signal reaches the main thread alone; whoever waits there for others to end calls this, so that they do.
    """
    with _starting:
        _interrupted.set()
        for process in multiprocessing.active_children():
            process.kill()


def resume() -> None:
    """Allow work again, once all that was interrupted has ended."""
    _interrupted.clear()


def _check_interrupted() -> None:
    if _interrupted.is_set():
        raise KeyboardInterrupt("the work was interrupted")


def _start(writer: Connection, function: Callable[..., Any], args: tuple[Any, ...], events: bool) -> ForkServerProcess:
    context = multiprocessing.get_context("forkserver")
    with _starting, _without_main(), _patient_threads():
        _check_interrupted()
        context.set_forkserver_preload(PRELOAD)
        process = context.Process(target=_work, args=(writer, function, args, events), daemon=True)
        process.start()
    writer.close()  # so that the end of the process is the end of the pipe
    return process


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the main module while a process starts: multiprocessing would run it again there, a command line's too."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _patient_threads() -> Iterator[None]:
    """Have the fork server's threads wait for each other awake for some microseconds, then asleep.

    Awake for long, as is libgomp's way, they ruin a busy machine; asleep at once, two threads are no faster than one
    (docs/measured.md). What the user has set of the two variables stands.
    """
    meant = {} if WAITING.keys() & os.environ.keys() else WAITING
    os.environ.update(meant)
    try:
        yield
    finally:
        for name in meant:
            del os.environ[name]


def _listen(works: dict[Connection, ForkServerProcess], on_event: Callable[[Any], None] | None) -> Any:
    first, busy = next(iter(works)), list(works)
    while True:
        for reader in wait(busy):
            kind, value = _received(reader, works)  # type: ignore[arg-type]
            if kind in ("died", "error"):
                raise _cause(_Failure(kind, value), reader, works)  # type: ignore[arg-type]
            if kind == "result" and reader is first:
                return value
            if kind == "result":
                busy.remove(reader)  # type: ignore[arg-type]
            if reader is not first:
                continue
            if kind == "event" and on_event:
                on_event(value)
            elif kind == "log":
                logging.getLogger(value[0]).log(value[1], "%s", value[2])


def _received(reader: Connection, works: dict[Connection, ForkServerProcess]) -> tuple[str, Any]:
    try:
        return reader.recv()  # type: ignore[no-any-return]
    except (EOFError, ConnectionResetError):
        works[reader].join()
        _check_interrupted()
        one = "the process" if len(works) == 1 else f"one of the {len(works)} processes"
        message = f"{one} of this work ended without a result ({_how(works[reader])})."
        return "died", (DiedError, message, "")


class _Failure(NamedTuple):
    kind: str
    value: tuple[type[AgepipeError], str, str]

    @property
    def follows(self) -> int:
        """How likely it follows from another: a lost connection is an error of no class of ours."""
        return 0 if self.kind == "died" else 2 if self.value[0] is WorkerError else 1


def _cause(failure: _Failure, reader: Connection, works: dict[Connection, ForkServerProcess]) -> AgepipeError:
    """Of the failures that come within the grace, the one from which the others follow."""
    failures, others, end = [failure], [one for one in works if one is not reader], time.monotonic() + GRACE
    while others and _first(failures).follows and (ready := wait(others, max(0.0, end - time.monotonic()))):
        for one in ready:
            kind, value = _received(one, works)  # type: ignore[arg-type]
            if kind in ("died", "error", "result"):
                others.remove(one)  # type: ignore[arg-type]
            if kind in ("died", "error"):
                failures.append(_Failure(kind, value))
    return _raised(*_first(failures).value)


def _first(failures: Sequence[_Failure]) -> _Failure:
    return min(failures, key=lambda one: one.follows)


def _how(process: ForkServerProcess) -> str:
    code = process.exitcode or 0
    if code >= 0:
        return f"exit status {code}"
    name = signal.Signals(-code).name
    short = "; if memory has run out, take fewer --workers or a smaller learn.batch"
    return f"killed by {name}" + (short if name == "SIGKILL" else "")


def _raised(kind: type[AgepipeError], message: str, trace: str) -> AgepipeError:
    error = kind(message)
    if trace:
        error.add_note(trace)
    return error


def _work(writer: Connection, function: Callable[..., Any], args: tuple[Any, ...], events: bool) -> None:
    """What the new process runs."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent decides what an interrupt means
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _send_logs(writer)
    extra = {"on_event": lambda event: writer.send(("event", event))} if events else {}
    try:
        writer.send(("result", function(*args, **extra)))
    except AgepipeError as error:
        writer.send(("error", (type(error), str(error), traceback.format_exc())))
    except BaseException as error:  # noqa: BLE001  whatever it was, the parent must hear of it
        last = traceback.format_exception_only(error)[-1].strip()
        full = full_disk(error)
        kind, said = (TrainingError, full) if full else (WorkerError, f"the process of this work failed: {last}")
        writer.send(("error", (kind, said, traceback.format_exc())))
    writer.close()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class _Sender(logging.Handler):
    def __init__(self, writer: Connection) -> None:
        super().__init__()
        self.writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        self.writer.send(("log", (record.name, record.levelno, record.getMessage())))


def _send_logs(writer: Connection) -> None:
    logging.getLogger("agepipe").handlers = [_Sender(writer)]
    logging.getLogger("agepipe").setLevel(logging.INFO)
