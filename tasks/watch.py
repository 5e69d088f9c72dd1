"""Progress of a stage, as log records that carry a `Step`.

The command line shows them as bars; in a worker, Prefect stores the lines with the task run.
"""

import logging
import time
from dataclasses import dataclass

from agepipe.core.progress import Progress

logger = logging.getLogger("agepipe.progress")

LOG_EVERY = 0.2
"""Minimum time between two records of a stage, s; the last is always logged."""


@dataclass(frozen=True)
class Step:
    """Progress of `stage`: `done` of `total` units are finished."""

    stage: str
    done: int
    total: int
    note: str = ""

    @property
    def finished(self) -> bool:
        """Whether this was the last unit."""
        return self.done >= self.total

    def __str__(self) -> str:
        return f"{self.stage}: {self.done} of {self.total}" + (f", {self.note}" if self.note else "")


def watch(stage: str) -> Progress:
    """A progress callback that logs at most one `Step` in `LOG_EVERY` seconds, and always the last."""
    latest = 0.0

    def report(done: int, total: int, note: str = "") -> None:
        nonlocal latest
        step, now = Step(stage, done, total, note), time.monotonic()
        if step.finished or now - latest >= LOG_EVERY:
            latest = now
            logger.info("%s", step, extra={"step": step})

    return report
