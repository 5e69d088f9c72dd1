"""Changed training jobs, the state that they save, and a kill in the middle, for tests of training and search."""

import dataclasses
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from agepipe.training import checkpoints
from agepipe.training.job import EpochEvent, Examples, Fitted, Job
from agepipe.training.loop import BEST, CHECKPOINT


def job_with(job: Job, folder: str = "training", **changes: object) -> Job:
    """The job in another folder beside its own; `changes` are fields of `learn`."""
    return dataclasses.replace(job, learn=job.learn.model_copy(update=changes), folder=job.folder.with_name(folder))


def first_rows(job: Job, count: int) -> Job:
    """The job with fewer training rows."""
    few = Examples(*(getattr(job.train, field.name)[:count] for field in dataclasses.fields(Examples)))
    return dataclasses.replace(job, train=few)


def state(job: Job, file: str = CHECKPOINT) -> dict[str, Any]:
    """What a training has saved."""
    found = checkpoints.load(job.folder / file)
    assert found is not None
    return found


def weights(job: Job, file: str = BEST) -> dict[str, Any]:
    """The saved weights of the network, by name."""
    return dict(state(job, file)["network"])


def without_seconds(fitted: Fitted) -> list[dict[str, float]]:
    """The figures of each epoch that do not depend on the machine."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in fitted.curves]


def kill_after(epoch: int, pause: float) -> Callable[[EpochEvent], None]:
    """An event handler that kills the training process `pause` seconds after an epoch."""

    def kill(event: EpochEvent) -> None:
        if event.epoch == epoch:
            time.sleep(pause)
            (child,) = multiprocessing.active_children()
            os.kill(child.pid or 0, signal.SIGKILL)

    return kill
