"""A context manager that one process at a time may enter, for tests of what happens when its holder is killed."""

import multiprocessing
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from multiprocessing.synchronize import Event

Enter = Callable[[], AbstractContextManager[object]]


def _hold(enter: Enter, ready: Event) -> None:
    with enter():
        ready.set()
        time.sleep(300)


def order_around_a_kill(enter: Enter) -> list[str]:
    """Enter in a thread while another process is inside, then kill that process.

    Args:
        enter: a picklable function that returns the context manager.

    Returns:
        "killed" and "entered", in the order in which they happened.
    """
    context = multiprocessing.get_context("spawn")
    order, ready = [], context.Event()

    def second() -> None:
        with enter():
            order.append("entered")

    holder = context.Process(target=_hold, args=(enter, ready))
    holder.start()
    try:
        assert ready.wait(60)
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(0.5)
        order.append("killed")
    finally:
        holder.kill()
        holder.join()
    waiting.join(10)
    return order
