"""Run functions in processes of their own, so that the caller does not import torch and trainings share no state.

A fork server imports torch and the training loop once; each worker process is forked from it in milliseconds. It sends
events, log records and its result through a pipe, and exits when its parent dies, also by SIGKILL.
"""

import logging
import math
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
from typing import Any, NamedTuple, TypeVar, cast

from agepipe.core.errors import AgepipeError, DiedError, TrainingError, WorkerError
from agepipe.core.system_errors import full_disk

T = TypeVar("T")

PRELOAD = ["agepipe.training.ignore_signals", "agepipe.training.loop"]
"""Modules that the fork server imports; because of the first, it and all workers ignore SIGINT and SIGTERM."""

GRACE = 3.0
"""Time for which errors of other workers are awaited after the first one, to report the one that caused it, s."""

THREAD_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "5000"}
"""Environment variables for how OpenMP threads wait; the second is read by libgomp, which torch uses on Linux."""

_starting = threading.Lock()
_interrupted = threading.Event()


def isolated(function: Callable[..., T], *args: Any, on_event: Callable[[Any], None] | None = None) -> T:
    """Run a function in a new process and return its result; several threads may do so at the same time.

    Args:
        function: a module-level function. If `on_event` is given, it gets a keyword argument `on_event`, a function
            that sends an event to this process.
        args: its arguments; they, the result and the events must be picklable.
        on_event: called in this process with each event, in order.

    Raises:
        AgepipeError: the function raised it; class and message are kept.
        WorkerError: the function raised another exception.
        DiedError: the process ended without a result.
        KeyboardInterrupt: `interrupt` was called.
    """
    return isolated_group(function, [args], on_event)


def isolated_group(
    function: Callable[..., T], arguments: Sequence[tuple[Any, ...]], on_event: Callable[[Any], None] | None = None
) -> T:  # fmt: skip
    """As `isolated`, in several processes that work together; if one fails, all are killed.

    Args:
        function: as of `isolated`.
        arguments: the arguments of each process.
        on_event: called in this process with each event of the first process, in order.

    Returns:
        The result of the first process; only its log records are passed on.

    Raises:
        AgepipeError: as `isolated`; of several errors, the one that caused the others.
    """
    if multiprocessing.current_process().daemon:
        raise WorkerError(
            "runner: this Dask worker may have no children, so it cannot train; start it with the environment variable "
            "DASK_DISTRIBUTED__WORKER__DAEMON=False."
        )
    workers: dict[Connection, ForkServerProcess] = {}
    try:
        for args in arguments:
            reader, writer = multiprocessing.get_context("forkserver").Pipe(duplex=False)
            workers[reader] = _start(writer, function, args, events=on_event is not None)
        return _receive_all(workers, on_event)  # type: ignore[no-any-return]
    finally:
        for reader, process in workers.items():
            reader.close()
            if process.is_alive():
                process.kill()
        for process in workers.values():
            process.join()


def warm() -> None:
    """Start the fork server without waiting for its imports, so that the first worker starts sooner."""
    with _starting, _hidden_main(), _thread_waiting():
        multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOAD)
        forkserver.ensure_running()


def interrupt() -> None:
    """Kill all workers, and refuse to start others until `resume`.

    Python handles signals in the main thread only. It calls this function, so that the threads that wait for workers
    end as well.
    """
    with _starting:
        _interrupted.set()
        for process in multiprocessing.active_children():
            process.kill()


def resume() -> None:
    """Allow workers to be started again after `interrupt`."""
    _interrupted.clear()


def _check_interrupted() -> None:
    if _interrupted.is_set():
        raise KeyboardInterrupt("the work was interrupted")


def _start(writer: Connection, function: Callable[..., Any], args: tuple[Any, ...], events: bool) -> ForkServerProcess:
    context = multiprocessing.get_context("forkserver")
    with _starting, _hidden_main(), _thread_waiting():
        _check_interrupted()
        context.set_forkserver_preload(PRELOAD)
        process = context.Process(target=_work, args=(writer, function, args, events), daemon=True)
        process.start()
    writer.close()  # so that the pipe ends with the process
    return process


@contextmanager
def _hidden_main() -> Iterator[None]:
    """Hide the main module while a process starts, because multiprocessing would run it again in the process."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _thread_waiting() -> Iterator[None]:
    """Set `THREAD_WAITING` while the fork server starts: OpenMP threads then spin for some microseconds, then sleep.

    By libgomp's default they spin for long, which slows down a busy machine; if they sleep at once, two threads are no
    faster than one (docs/measured.md). If the user has set one of the variables, neither is changed.
    """
    added = {} if THREAD_WAITING.keys() & os.environ.keys() else THREAD_WAITING
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _receive_all(workers: dict[Connection, ForkServerProcess], on_event: Callable[[Any], None] | None) -> Any:
    """Handle the messages of all workers until the first one returns its result or one fails."""
    first, busy, failures, end = next(iter(workers)), list(workers), list[_Failure](), math.inf
    while busy and all(failure.rank for failure in failures):
        # after a failure, those of the other workers may show its cause
        ready = wait(busy, None if not failures else max(0.0, end - time.monotonic()))
        if not ready:
            break
        for reader in cast(list[Connection], ready):
            kind, value = _received(reader, workers)
            if kind in ("result", "error", "died"):
                busy.remove(reader)
            if kind in ("error", "died"):
                failures.append(_Failure(kind, value))
                end = min(end, time.monotonic() + GRACE)
            elif failures or reader is not first:
                continue
            elif kind == "result":
                return value
            elif kind == "event" and on_event:
                on_event(value)
            elif kind == "log":
                logging.getLogger(value[0]).log(value[1], "%s", value[2])
    error_class, message, trace = min(failures, key=lambda failure: failure.rank).value
    error = error_class(message)
    if trace:
        error.add_note(trace)
    raise error


def _received(reader: Connection, workers: dict[Connection, ForkServerProcess]) -> tuple[str, Any]:
    try:
        return reader.recv()  # type: ignore[no-any-return]
    except (EOFError, ConnectionResetError):
        workers[reader].join()
        _check_interrupted()
        one = "the process" if len(workers) == 1 else f"one of the {len(workers)} processes"
        message = f"{one} of this work ended without a result ({_exit_reason(workers[reader])})."
        return "died", (DiedError, message, "")


class _Failure(NamedTuple):
    kind: str
    value: tuple[type[AgepipeError], str, str]

    @property
    def rank(self) -> int:
        """Rank as the cause of the others, 0 first; a lost connection, a `WorkerError`, is often a consequence."""
        return 0 if self.kind == "died" else 2 if self.value[0] is WorkerError else 1


def _exit_reason(process: ForkServerProcess) -> str:
    code = process.exitcode or 0
    if code >= 0:
        return f"exit status {code}"
    name = signal.Signals(-code).name
    short = "; if memory has run out, take fewer --workers or a smaller learn.batch"
    return f"killed by {name}" + (short if name == "SIGKILL" else "")


def _work(writer: Connection, function: Callable[..., Any], args: tuple[Any, ...], events: bool) -> None:
    """Entry point of the process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent decides what an interrupt means
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _send_logs(writer)
    extra = {"on_event": lambda event: writer.send(("event", event))} if events else {}
    try:
        writer.send(("result", function(*args, **extra)))
    except AgepipeError as error:
        writer.send(("error", (type(error), str(error), traceback.format_exc())))
    except BaseException as error:  # noqa: BLE001  the parent raises every error
        last = traceback.format_exception_only(error)[-1].strip()
        full = full_disk(error)
        kind, message = (TrainingError, full) if full else (WorkerError, f"the process of this work failed: {last}")
        writer.send(("error", (kind, message, traceback.format_exc())))
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
