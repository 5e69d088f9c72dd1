"""How fast ingest is, beside a bare loop that only decodes and resizes the same files on the same threads.

    python benchmarks/ingest.py PATH [PATH ...] [--size 108] [--threads 2] [--rounds 5]

The bare loop reads the same archives and folders, hands raw bytes to threads, and leaves the pictures in one array in
memory: no digest, no header check, no thumbnail, no appearance, nothing written. It is also timed while it throws each
picture away, for comparison. All run in turns, because the load of a machine varies; the medians and the median
of the rounds' ratios are printed. Ingest's seconds include everything up to the
finished catalogue; the search for near duplicates, which does not depend on decoding, is also shown by itself.
Processor seconds (all threads) say what the work costs where other programs take some of the cores.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from agepipe.config.runtime import Runtime
from agepipe.config.stages import IngestSettings, SourceSettings
from agepipe.data import archives, duplicates, sources
from agepipe.data import ingest as stage

T = TypeVar("T")
PIECE = 128
"""Files that a thread of the bare loop gets at a time."""


class Round(NamedTuple):
    """Seconds of one turn of each."""

    bare: float
    empty: float
    """The bare loop, keeping nothing."""
    ingest: float
    groups: float
    """The part of `ingest` that groups duplicates."""
    bare_cpu: float
    empty_cpu: float
    ingest_cpu: float


def main() -> int:
    """Run the rounds and print the table; the exit status is 1 when the ratio is below 0.8."""
    arguments = _arguments()
    cv2.setNumThreads(1)
    rounds: list[Round] = []
    count = 0
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory(prefix="agepipe-bench-") as folder:
            runtime = Runtime(workspace=Path(folder), workers=arguments.threads)
            count, seconds = _round(tuple(arguments.paths), arguments.size, runtime)
        rounds.append(seconds)
    ratio = statistics.median(item.bare / (item.ingest - item.groups) for item in rounds)
    whole = statistics.median(item.bare / item.ingest for item in rounds)
    _print(rounds, count, arguments.threads, ratio, whole)
    return int(ratio < 0.8)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("paths", nargs="+", help="folders or archives of UTKFace photographs")
    parser.add_argument("--size", type=int, default=IngestSettings().size, help="side of a stored picture, px")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="decoding threads, for both")
    parser.add_argument("--rounds", type=int, default=5, help="turns that each of the two gets")
    return parser.parse_args()


def _round(paths: tuple[str, ...], size: int, runtime: Runtime) -> tuple[int, Round]:
    source = sources.fingerprint(SourceSettings(data=paths), runtime)
    files = sum(len(piece) for piece in _pieces(source.locations))
    decoded, *plain = _timed(lambda: bare(source.locations, size, runtime.workers, files))
    _, *empty = _timed(lambda: bare(source.locations, size, runtime.workers))
    settings = IngestSettings(size=size, max_reject_share=0.99)
    folder = runtime.workspace / "catalogue"
    folder.mkdir()
    catalogue, *whole = _timed(lambda: stage.ingest(source, settings, folder, runtime))
    if catalogue.count != decoded:
        print(f"the bare loop decoded {decoded} files, ingest used {catalogue.count}", file=sys.stderr)
    groups = _grouping(catalogue.pixels, catalogue.table)
    return catalogue.count, Round(plain[0], empty[0], whole[0], groups, plain[1], empty[1], whole[1])


def _timed(work: Callable[[], T]) -> tuple[T, float, float]:
    """What the work returns, its seconds, and its processor seconds."""
    start, used = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - start, time.process_time() - used


def _grouping(pixels: Path, table: Path) -> float:
    thumbnails = duplicates.thumbnails(np.load(pixels, mmap_mode="r"))
    digests = pl.read_parquet(table, columns=["digest"]).get_column("digest").to_list()
    start = time.perf_counter()
    duplicates.groups(thumbnails, digests, IngestSettings().near_duplicate)
    return time.perf_counter() - start


def bare(locations: tuple[Path, ...], size: int, threads: int, files: int = 0) -> int:
    """Decode and resize every photograph, and count them; they are kept where the number of files is given."""
    kept = np.empty((files, size, size, 3), dtype=np.uint8)
    pending: deque[Future[int]] = deque()
    count = start = 0
    with ThreadPoolExecutor(threads) as pool:
        for piece in _pieces(locations):
            pending.append(pool.submit(_decode, piece, kept[start : start + PIECE] if files else None, size))
            start += len(piece)
            if len(pending) > threads:
                count += pending.popleft().result()
        return count + sum(future.result() for future in pending)


def _decode(piece: list[bytes], kept: NDArray[np.uint8] | None, size: int) -> int:
    places = [np.empty((size, size, 3), dtype=np.uint8)] * len(piece) if kept is None else kept
    count = 0
    for data in piece:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        if image is not None:
            cv2.resize(image, (size, size), dst=places[count], interpolation=cv2.INTER_AREA)
            count += 1
    return count


def _pieces(locations: tuple[Path, ...]) -> Iterator[list[bytes]]:
    piece: list[bytes] = []
    for location in locations:
        for entry in archives.entries(location):
            if entry.reject is None:
                piece.append(entry.read())
            if len(piece) == PIECE:
                yield piece
                piece = []
    yield piece


def _print(rounds: list[Round], count: int, threads: int, ratio: float, whole: float) -> None:
    table = Table(title=f"{count} photographs, {threads} threads, median of {len(rounds)} rounds")
    for title in ("", "seconds", "images/s", "of the bare loop", "processor s", "of the bare loop's"):
        table.add_column(title, justify="right" if title else "left")
    middle = Round(*(statistics.median(column) for column in zip(*rounds, strict=True)))
    own = statistics.median(item.ingest - item.groups for item in rounds)
    cost = statistics.median(item.ingest_cpu / item.bare_cpu for item in rounds)
    rows = (
        ("bare decode and resize", middle.bare, "1.00", f"{middle.bare_cpu:.2f}", "1.00"),
        ("the same, keeping nothing", middle.empty, f"{middle.bare / middle.empty:.2f}", f"{middle.empty_cpu:.2f}", ""),
        ("ingest, without grouping", own, f"{ratio:.2f}", "", ""),
        ("grouping of duplicates", middle.groups, "", "", ""),
        ("ingest, all of it", middle.ingest, f"{whole:.2f}", f"{middle.ingest_cpu:.2f}", f"{cost:.2f}"),
    )
    for name, seconds, share, *rest in rows:
        table.add_row(name, f"{seconds:.2f}", f"{count / seconds:,.0f}", share, *rest)
    Console().print(table)


if __name__ == "__main__":
    raise SystemExit(main())
