"""Work in a process of its own, so that the caller never imports torch and no two trainings share random state.

A fork server imports torch once; each piece of work is then a fork of it, there in milliseconds. The work's process
sends events and its result through a pipe, and ends when its parent dies, however that died.
"""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from types import ModuleType
from typing import Any, TypeVar

from agepipe.errors import AgepipeError, WorkerError

T = TypeVar("T")

PRELOAD = ["agepipe.learn.fit"]
"""What the fork server imports once for all work."""

_starting = threading.Lock()


def isolated(function: Callable[..., T], *args: Any, on_event: Callable[[Any], None] | None = None) -> T:
    """Run a module-level function in a fresh process and wait for it; many threads may do so at once.

    Args:
        function: with `on_event` given, it is called with a keyword `on_event` of its own to send events through.
        args: picklable arguments; the result and events must be picklable as well.
        on_event: called in this process with each event, in order.

    Raises:
        AgepipeError: of the function, as its own class with its message.
        WorkerError: any other exception of the function, or the process ended without a result.
    """
    if multiprocessing.current_process().daemon:
        raise WorkerError(
            "runner: this Dask worker may have no children, so it cannot train; start it with the environment variable "
            "DASK_DISTRIBUTED__WORKER__DAEMON=False."
        )
    reader, writer = multiprocessing.get_context("forkserver").Pipe(duplex=False)
    process = _start(writer, function, args, events=on_event is not None)
    try:
        return _listen(process, reader, on_event)  # type: ignore[no-any-return]
    finally:
        reader.close()
        if process.is_alive():
            process.kill()
        process.join()


def _start(writer: Connection, function: Callable[..., Any], args: tuple[Any, ...], events: bool) -> ForkServerProcess:
    context = multiprocessing.get_context("forkserver")
    with _starting, _without_main(), _patient_threads():
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
    """Have the fork server's threads sleep while they wait for each other; what the user has set stands.

    Spinning gains little on an idle machine and ruins a busy one. Measured on two cores with one other busy process,
    images/s of a small network: one thread 780, two that spin 46 to 160, two that sleep 340 to 550.
    """
    before = os.environ.get("OMP_WAIT_POLICY")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_WAIT_POLICY"]


def _listen(process: ForkServerProcess, reader: Connection, on_event: Callable[[Any], None] | None) -> Any:
    while True:
        try:
            kind, value = reader.recv()
        except (EOFError, ConnectionResetError):
            process.join()
            raise WorkerError(f"the process of this work ended without a result ({_how(process)}).") from None
        if kind == "result":
            return value
        if kind == "event" and on_event:
            on_event(value)
        elif kind == "log":
            logging.getLogger(value[0]).log(value[1], "%s", value[2])
        elif kind == "error":
            raise _raised(*value)


def _how(process: ForkServerProcess) -> str:
    code = process.exitcode or 0
    if code >= 0:
        return f"exit status {code}"
    name = signal.Signals(-code).name
    return f"killed by {name}" + ("; memory may have run out" if name == "SIGKILL" else "")


def _raised(kind: type[AgepipeError], message: str, trace: str) -> AgepipeError:
    error = kind(message)
    error.add_note(trace)
    return error


def _work(writer: Connection, function: Callable[..., Any], args: tuple[Any, ...], events: bool) -> None:
    """What the new process runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _send_logs(writer)
    extra = {"on_event": lambda event: writer.send(("event", event))} if events else {}
    try:
        writer.send(("result", function(*args, **extra)))
    except AgepipeError as error:
        writer.send(("error", (type(error), str(error), traceback.format_exc())))
    except BaseException as error:  # noqa: BLE001  whatever it was, the parent must hear of it
        last = traceback.format_exception_only(error)[-1].strip()
        writer.send(("error", (WorkerError, f"the process of this work failed: {last}", traceback.format_exc())))
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
