"""What trials and the final training share: a folder for work in progress, and the entry of the training's process."""

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from agepipe.artifact import file_digest, read_manifest
from agepipe.config import LearnSettings, Where
from agepipe.data.relabel import read_table
from agepipe.environment import version
from agepipe.learn.job import EpochEvent, Fitted, Job
from agepipe.learn.names import is_file
from agepipe.records import Rows

COLUMNS = ("index", "age", "label", "group", "digest", "look")
"""Columns of labelled rows that a training needs."""

SMALL_BATCH = 64 * 64**2
"""Pixels in a batch below which threads cost more in waiting for each other than they give."""


def fitting(job: Job, on_event: Callable[[EpochEvent], None] | None = None) -> Fitted:
    """What the process of a training runs."""
    from agepipe.learn.fit import fit

    return fit(job, on_event)


@contextmanager
def in_progress(folder: Path) -> Iterator[Path]:
    """The place of checkpoints for a result folder; kept while the result is unfinished, removed once it is there.

    One process at a time works on a result; a second waits, and then finds it finished. The lock ends with its
    process, however that ended.
    """
    work, lock = _places(folder)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield work
        if read_manifest(folder) is not None:
            shutil.rmtree(work, ignore_errors=True)
            lock.unlink(missing_ok=True)  # whoever still waits on it finds the result finished


def discard(folder: Path) -> None:
    """Remove the checkpoints of a result that will not be finished, unless another process is at work on it."""
    work, lock = _places(folder)
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(work, ignore_errors=True)
        lock.unlink(missing_ok=True)


def made_with() -> dict[str, str]:
    """Versions of the packages that train and export, for a new card."""
    return {name: version(name) for name in ("agepipe", "torch", "torchvision", "onnx", "numpy")}


def _places(folder: Path) -> tuple[Path, Path]:
    work = folder.parent / f".{folder.name}-progress"
    return work, work.with_name(work.name + ".lock")


def threads(learn: LearnSettings, where: Where) -> int:
    """Threads of the final training: what the user says, else one for small batches and one a core for large ones.

    Measured on two busy cores, shufflenet at batch 32 of 64 px: 560 images/s with one thread, 200 with two.
    """
    small = learn.batch * learn.size**2 < SMALL_BATCH
    return where.threads or (1 if small else where.thread_count)


def labelled(rows: Rows) -> pl.DataFrame:
    """The table of labelled rows, in an order that follows from their content, so that a training does as well.

    Raises:
        DataError: the file is missing, is not Parquet, or lacks a column.
    """
    return read_table(rows.table, COLUMNS).sort("digest", "age", "label", "index")


def weights_digest(learn: LearnSettings) -> str:
    """What the first weights are: the digest of a file's content, or the name of torchvision's."""
    return file_digest(Path(learn.weights)) if is_file(learn.weights) else learn.weights
