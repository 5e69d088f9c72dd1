"""Shared by trials and the final training: rows, numbers of threads, and the processes of a training."""

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
from agepipe.training.worker import isolated_group

COLUMNS = ("index", "age", "label", "group", "digest", "look")
"""Columns of labelled rows that a training needs."""

SMALL_BATCH = 64 * 64**2
"""Pixels in a batch below which several threads are slower than one."""


def fitting(job: Job, on_event: Callable[[EpochEvent], None] | None = None) -> Fitted:
    """Entry point of a training's process; see `agepipe.training.loop.fit`."""
    from agepipe.training.loop import fit

    return fit(job, on_event)


def train_in_processes(job: Job, processes: int, on_event: Callable[[EpochEvent], None] | None = None) -> Fitted:
    """Train in one or several new processes on this machine; several share every batch.

    Raises:
        AgepipeError: as `agepipe.training.loop.fit`.
        WorkerError: a process died; the others are killed.
    """
    return isolated_group(fitting, [(one,) for one in process_jobs(job, processes)], on_event)


def process_jobs(job: Job, processes: int) -> list[Job]:
    """The job of each process of a training on this machine, with a free port."""
    if processes == 1:
        return [job]
    with bound("--processes", "127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    return [replace(job, seat=Seat(rank, processes, port), gpu=rank) for rank in range(processes)]


def made_with() -> dict[str, str]:
    """Versions of the packages that train and export, for the card of a bundle."""
    return {name: version(name) for name in ("agepipe", "torch", "torchvision", "onnx", "numpy")}


def threads(learn: LearnSettings, runtime: Runtime) -> int:
    """Threads of each process of the final training: as the user set, else one for small batches, one a core for large.

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
    """Read the table of labelled rows, sorted by content, so that a training does not depend on their order.

    Raises:
        DataError: the file is missing, is not Parquet, or lacks a column.
    """
    return read_table(rows.table, COLUMNS).sort("digest", "age", "label", "index", maintain_order=True)


def weights_digest(learn: LearnSettings) -> str:
    """Identify the initial weights: by the digest of a file, else by their name in torchvision or timm."""
    file = packaged(learn.network) if learn.weights == PRETRAINED else None
    if file is None and is_file(learn.weights):
        file = Path(learn.weights)
    return learn.weights if file is None else file_digest(file)
