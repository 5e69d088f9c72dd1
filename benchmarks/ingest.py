"""How fast ingest is, beside a bare loop that only decodes and resizes the same files on the same threads.

    python benchmarks/ingest.py PATH [PATH ...] [--size 108] [--threads 2] [--rounds 5]

The bare loop reads the same archives and folders, hands raw bytes to threads, and keeps nothing: no digest, no
header check, no thumbnail, no appearance, nothing written. The two run in turns, since a machine has good and bad
minutes; the medians and the median of the rounds' ratios are printed. Ingest's seconds include everything up to the
finished catalogue; the search for near duplicates, which does not depend on decoding, is also shown by itself.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from agepipe.config import IngestSettings, SourceSettings, Where
from agepipe.data import archives, duplicates, sources
from agepipe.data import ingest as stage

PIECE = 128
"""Files that a thread of the bare loop gets at a time; 32 to 512 make no difference."""


class Round(NamedTuple):
    """Seconds of one turn of each."""

    bare: float
    ingest: float
    groups: float
    """The part of `ingest` that groups duplicates."""


def main() -> int:
    """Run the rounds and print the table; the exit status is 1 when the ratio is below 0.8."""
    arguments = _arguments()
    cv2.setNumThreads(1)
    rounds: list[Round] = []
    count = 0
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory(prefix="agepipe-bench-") as folder:
            where = Where(workspace=Path(folder), workers=arguments.threads)
            count, seconds = _round(tuple(arguments.paths), arguments.size, where)
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


def _round(paths: tuple[str, ...], size: int, where: Where) -> tuple[int, Round]:
    source = sources.fingerprint(SourceSettings(data=paths), where)
    start = time.perf_counter()
    decoded = bare(source.locations, size, where.workers)
    bare_end = time.perf_counter()
    catalogue = stage.ingest(source, IngestSettings(size=size, max_reject_share=0.99), where)
    end = time.perf_counter()
    if catalogue.count != decoded:
        print(f"the bare loop decoded {decoded} files, ingest used {catalogue.count}", file=sys.stderr)
    groups = _grouping(catalogue.pixels, catalogue.table)
    return catalogue.count, Round(bare_end - start, end - bare_end, groups)


def _grouping(pixels: Path, table: Path) -> float:
    thumbnails = duplicates.thumbnails(np.load(pixels, mmap_mode="r"))
    digests = pl.read_parquet(table, columns=["digest"]).get_column("digest").to_list()
    start = time.perf_counter()
    duplicates.groups(thumbnails, digests, IngestSettings().near_duplicate)
    return time.perf_counter() - start


def bare(locations: tuple[Path, ...], size: int, threads: int) -> int:
    """Decode and resize every photograph, keep nothing, and count them."""
    pending: deque[Future[int]] = deque()
    count = 0
    with ThreadPoolExecutor(threads) as pool:
        for piece in _pieces(locations):
            pending.append(pool.submit(_decode, piece, size))
            if len(pending) > threads:
                count += pending.popleft().result()
        return count + sum(future.result() for future in pending)


def _decode(piece: list[bytes], size: int) -> int:
    out = np.empty((size, size, 3), dtype=np.uint8)
    count = 0
    for data in piece:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        if image is not None:
            cv2.resize(image, (size, size), dst=out, interpolation=cv2.INTER_AREA)
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
    for title in ("", "seconds", "images/s", "of the bare loop"):
        table.add_column(title, justify="right" if title else "left")
    bare_seconds = statistics.median(item.bare for item in rounds)
    own = statistics.median(item.ingest - item.groups for item in rounds)
    all_of_it = statistics.median(item.ingest for item in rounds)
    grouping = statistics.median(item.groups for item in rounds)
    table.add_row("bare decode and resize", f"{bare_seconds:.2f}", f"{count / bare_seconds:,.0f}", "1.00")
    table.add_row("ingest, without grouping", f"{own:.2f}", f"{count / own:,.0f}", f"{ratio:.2f}")
    table.add_row("grouping of duplicates", f"{grouping:.2f}", f"{count / grouping:,.0f}", "")
    table.add_row("ingest, all of it", f"{all_of_it:.2f}", f"{count / all_of_it:,.0f}", f"{whole:.2f}")
    Console().print(table)


if __name__ == "__main__":
    raise SystemExit(main())
