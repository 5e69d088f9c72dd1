"""What trials and the final training share: a folder for work in progress, and the entry of the training's process."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl

from agepipe.config.pretrained import PRETRAINED, packaged
from agepipe.config.runtime import Runtime
from agepipe.config.stages import LearnSettings
from agepipe.config.torchvision_models import is_file
from agepipe.core.artifacts import file_digest
from agepipe.core.ports import bound
from agepipe.core.provenance import version
from agepipe.data.labels import read_table
from agepipe.data.records import Rows
from agepipe.training.job import EpochEvent, Fitted, Job, Seat
from agepipe.training.worker import together

COLUMNS = ("index", "age", "label", "group", "digest", "look")
"""Columns of labelled rows that a training needs."""

SMALL_BATCH = 64 * 64**2
"""Pixels in a batch below which threads cost more in waiting for each other than they give."""


def fitting(job: Job, on_event: Callable[[EpochEvent], None] | None = None) -> Fitted:
    """What the process of a training runs."""
    from agepipe.training.loop import fit

    return fit(job, on_event)


def shared(job: Job, processes: int, on_event: Callable[[EpochEvent], None] | None = None) -> Fitted:
    """Train in processes of their own, one of them or several that share every batch.

    Raises:
        AgepipeError: as `agepipe.training.loop.fit`.
        WorkerError: a process died; the others are ended.
    """
    return together(fitting, [(one,) for one in seated(job, processes)], on_event)


def seated(job: Job, processes: int) -> list[Job]:
    """The job as each of its processes sees it, all of them on this machine."""
    if processes == 1:
        return [job]
    with bound("--processes", "127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    return beside(job, Seat(0, processes, port))


def beside(job: Job, first: Seat) -> list[Job]:
    """The job as each process of a machine sees it, by the seat of the first of them."""
    return [replace(job, seat=replace(first, rank=first.rank + place), gpu=place) for place in range(first.here)]


def made_with() -> dict[str, str]:
    """Versions of the packages that train and export, for a new card."""
    return {name: version(name) for name in ("agepipe", "torch", "torchvision", "onnx", "numpy")}


def threads(learn: LearnSettings, runtime: Runtime) -> int:
    """Threads of a process of the final training: the user's, else one for small batches and one a core for large ones.

    Measured on two busy cores, shufflenet at batch 32 of 64 px: 560 images/s with one thread, 200 with two.
    """
    wanted = runtime.threads or (1 if _small(learn) else runtime.thread_count)
    return max(1, wanted // runtime.processes_for(learn.batch))


def trial_threads(learn: LearnSettings, runtime: Runtime) -> int:
    """Threads of a trial: one for small batches, and its share of the cores for large ones."""
    return 1 if _small(learn) else runtime.trial_threads


def _small(learn: LearnSettings) -> bool:
    return learn.batch * learn.size**2 < SMALL_BATCH


def labelled(rows: Rows) -> pl.DataFrame:
    """The table of labelled rows, in an order that follows from their content, so that a training does as well.

    Raises:
        DataError: the file is missing, is not Parquet, or lacks a column.
    """
    return read_table(rows.table, COLUMNS).sort("digest", "age", "label", "index", maintain_order=True)


def weights_digest(learn: LearnSettings) -> str:
    """What the first weights are: the digest of a file's content, or the name that they have in torchvision or timm."""
    file = packaged(learn.network) if learn.weights == PRETRAINED else None
    if file is None and is_file(learn.weights):
        file = Path(learn.weights)
    return learn.weights if file is None else file_digest(file)
