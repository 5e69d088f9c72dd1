"""One trial a GPU, or as many as a machine has workers: each takes a place, and waits while all are taken.

A place is a lock on a file, so it binds threads, processes, Dask's workers on this machine and other pipelines alike,
and is free again when its process dies, however that died.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import lock_descriptor

from agepipe.config.runtime import Runtime, own_cores
from agepipe.core.record import digest_of

WAIT = 0.2
"""Seconds between two looks for a free place."""


@contextmanager
def placed(runtime: Runtime) -> Iterator[int | None]:
    """The GPU that a trial has while the block runs, by the number that CUDA gives it here; None without a GPU.

    On a CPU the runner itself has no more trials at a time than cores allow, but for Dask's workers that somebody else
    has started: those that have the same cores share its places.
    """
    if runtime.gpu_count:
        shown = os.environ.get("CUDA_VISIBLE_DEVICES", "all").replace(os.sep, "-")
        with place(runtime.gpu_count, runtime.gpu_trials, _folder(f"gpus-{shown}")) as gpu:
            yield gpu
    elif runtime.scheduler:
        with place(1, runtime.trial_count, _folder(f"cores-{digest_of(own_cores())[:10]}")):
            yield None
    else:
        yield None


@contextmanager
def place(gpus: int, each: int, folder: Path) -> Iterator[int]:
    """Wait for one of `gpus` × `each` places, whose locks lie in a folder; emptier GPUs come first."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [(gpu, folder / f"{gpu}-{number}.lock") for number in range(each) for gpu in range(gpus)]
    while True:
        for gpu, path in names:
            with path.open("a") as file:
                if lock_descriptor(file.fileno(), blocking=False):
                    yield gpu
                    return
        time.sleep(WAIT)


def _folder(shown: str) -> Path:
    """On this machine, not in the workspace, which several machines may share; another for each set that is shown."""
    return Path(tempfile.gettempdir()) / f"agepipe-{os.getuid()}-{shown}"
