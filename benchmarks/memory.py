"""Peak memory of a training against the number of rows in the memory-mapped store: how little it grows.

    python -m benchmarks.memory [--rows 2000] [--times 1 4 16] [--stored 108]

Random pictures of `--stored` px are written to a temporary folder, and the pipeline's own training goes over all of
them once in a process of its own: nine tenths to learn from, one tenth to judge. A small input is cropped out of the
stored picture, so that an epoch is short; what is read from the store, and could pile up, is the whole picture.

Memory is `RssAnon` of /proc/PID/status: what the process itself has allocated, read every 10 ms. The mapped pages of
the store are apart (`RssFile`, shown beside it, code of libraries included): the kernel keeps them while memory is
free, drops them without writing anything when it is not, and shares them among all trainings of one store.
"""

import argparse
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from agepipe.config.runtime import cores
from agepipe.config.stages import LearnSettings
from agepipe.model.ages import AgeRanges
from agepipe.training.job import Examples, Job
from agepipe.training.workdir import fitting
from agepipe.training.worker import isolated

AIM = 0.1
"""Growth of the peak over growth of the store: what is said of a row stays in memory for an epoch, its picture not."""
EVERY = 0.01
"""Seconds between two looks."""
BLOCK = 500
"""Pictures that are written at a time."""


class Peaks(NamedTuple):
    """Largest sizes of a process, MB."""

    own: float
    """`RssAnon`."""
    mapped: float
    """`RssFile`."""


def main() -> int:
    """Train at each number of rows and print the table; the exit status is 1 when memory grows by more than `AIM`."""
    from benchmarks.memory import training  # another process must find it by its module's name

    arguments = _arguments()
    found: dict[int, Peaks] = {}
    for times in sorted(arguments.times):
        rows = arguments.rows * times
        with tempfile.TemporaryDirectory(prefix="agepipe-bench-") as folder:
            found[rows] = isolated(training, _job(Path(folder), rows, arguments))
    share = _growth(found, arguments.stored)
    _print(found, arguments.stored)
    print(f"From the first to the last, memory grows by {share:.3f} of what the store grows by; the aim is {AIM}.")
    return int(share > AIM)


def _growth(found: dict[int, Peaks], stored: int) -> float:
    (few, least), *_, (many, most) = found.items()
    return (most.own - least.own) / _megabytes(many - few, stored)


def _megabytes(rows: int, stored: int) -> float:
    return rows * stored**2 * 3 / 1e6


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=2000, help="rows of the smallest store")
    parser.add_argument("--times", type=int, nargs="+", default=[1, 4, 16], help="how many times as many")
    parser.add_argument("--stored", type=int, default=108, help="side of a stored picture, px")
    parser.add_argument("--network", default="shufflenet_v2_x0_5", help="a torchvision classifier")
    parser.add_argument("--size", type=int, default=32, help="side of its input, px")
    parser.add_argument("--threads", type=int, default=cores())
    return parser.parse_args()


def training(job: Job) -> Peaks:
    """Train in this process, and say how large it was at most."""
    with _watched() as sizes:
        fitting(job)
    return Peaks(*(max(column) for column in zip(*sizes, strict=True)))


@contextmanager
def _watched() -> Iterator[list[tuple[float, float]]]:
    sizes, over = [_sizes()], threading.Event()

    def watch() -> None:
        while not over.wait(EVERY):
            sizes.append(_sizes())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield sizes
    finally:
        over.set()
        watching.join()


def _sizes() -> tuple[float, float]:
    lines = Path("/proc/self/status").read_text().splitlines()
    known = {name: value for name, _, value in (line.partition(":") for line in lines)}
    own, mapped = (int(known[name].split()[0]) * 1024 / 1e6 for name in ("RssAnon", "RssFile"))
    return own, mapped


def _job(folder: Path, rows: int, arguments: argparse.Namespace) -> Job:
    learn = LearnSettings(network=arguments.network, size=arguments.size, batch=64, epochs=1)
    ranges, random = AgeRanges.of("utkface"), np.random.default_rng(1)
    ages = random.integers(1, 100, rows)
    labels, unknown = ranges.classes(ages).astype(np.int64), np.full(rows, -1)
    train, validation = np.split(np.arange(rows), [rows * 9 // 10])
    learnt, judged = (
        Examples(part, ages[part], labels[part], unknown[part], unknown[part]) for part in (train, validation)
    )
    pixels = _stored(folder / "pixels.npy", rows, arguments.stored, random)
    return Job(folder / "work", pixels, learnt, judged, ranges, learn, "loss", device="cpu", threads=arguments.threads)


def _stored(path: Path, rows: int, side: int, random: np.random.Generator) -> Path:
    store = np.lib.format.open_memmap(path, "w+", np.uint8, (rows, side, side, 3))
    for start in range(0, rows, BLOCK):
        part = store[start : start + BLOCK]
        part[:] = random.integers(0, 256, part.shape, dtype=np.uint8)
    store.flush()
    return path


def _print(found: dict[int, Peaks], stored: int) -> None:
    table = Table(title=f"Peak memory of a training, pictures stored at {stored} px, MB")
    for name in ("rows", "the store", "own memory", "of the first", "mapped pages"):
        table.add_column(name, justify="right")
    first = next(iter(found.values())).own
    for rows, peaks in found.items():
        size = _megabytes(rows, stored)
        table.add_row(
            f"{rows:,}", f"{size:,.0f}", f"{peaks.own:,.0f}", f"{peaks.own / first:.2f}", f"{peaks.mapped:,.0f}"
        )
    Console().print(table)


if __name__ == "__main__":
    raise SystemExit(main())
