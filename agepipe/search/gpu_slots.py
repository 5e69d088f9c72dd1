"""Slots that limit the trials at a time on each GPU of a machine; a trial waits while all of them are taken.

A slot is a lock on a file. It is shared by threads, processes, Dask workers and other pipelines of the machine, and
the operating system frees it when its process dies, even by SIGKILL.
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
"""Seconds between two attempts to take a slot."""


@contextmanager
def gpu_slot(runtime: Runtime) -> Iterator[int | None]:
    """Reserve a GPU while the block runs, and return CUDA's index of it in this process; None without a GPU.

    Without a GPU the task runner limits the trials at a time. Only the workers of a Dask scheduler that runs elsewhere
    (`runtime.scheduler`) are not limited by it; those with the same cores share `runtime.trial_count` slots.
    """
    if runtime.gpu_count:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all").replace(os.sep, "-")
        with slot(runtime.gpu_count, runtime.gpu_trials, _folder(f"gpus-{visible}")) as gpu:
            yield gpu
    elif runtime.scheduler:
        with slot(1, runtime.trial_count, _folder(f"cores-{digest_of(own_cores())[:10]}")):
            yield None
    else:
        yield None


@contextmanager
def slot(gpus: int, each: int, folder: Path) -> Iterator[int]:
    """Wait for one of `gpus` × `each` slots, and return its GPU; GPUs with fewer trials come first.

    Args:
        gpus: number of GPUs.
        each: slots of each GPU.
        folder: where the lock files are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [(gpu, folder / f"{gpu}-{number}.lock") for number in range(each) for gpu in range(gpus)]
    while True:
        for gpu, path in names:
            with path.open("a") as file:
                if lock_descriptor(file.fileno(), blocking=False):
                    yield gpu
                    return
        time.sleep(WAIT)


def _folder(devices: str) -> Path:
    """In this machine's temporary folder, not in the workspace, which several machines may share."""
    return Path(tempfile.gettempdir()) / f"agepipe-{os.getuid()}-{devices}"
