"""What many photographs cost: time and peak memory of ingest and predict, beside a bare loop that only decodes.

    python -m benchmarks.millions FOLDER [--rows 20000] [--steps decode ingest predict] [--limit 2.0]

FOLDER receives tar archives of synthetic chips, each of `--archive` files, and the workspace; archives that are there
already are used again. A chip is a drawn face of `--side` px with a light of its own, so that digests and perceptual
hashes differ as those of photographs do; one in fifty is a copy of another one, re-encoded or byte for byte. `decode`
is the loop of `benchmarks.ingest` that only decodes and resizes, on the same archives and threads, keeping nothing.

Each step is a process of its own. Its memory is `RssAnon` summed over its processes, sampled ten times a second: what
they have allocated, without the pages of files, which the kernel drops when it needs memory. A step that has more than
`--limit` GB is killed.
"""

import argparse
import io
import resource
import shutil
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import polars as pl
import psutil
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from agepipe.config.runtime import Runtime, cores
from agepipe.config.stages import IngestSettings, SourceSettings
from agepipe.core.artifacts import replacing
from agepipe.data import sources
from agepipe.data.sample.source import encoded, plan
from agepipe.model.imaging import photograph
from benchmarks.ingest import bare
from tasks import data

STEPS = ("decode", "ingest", "predict")
FACES = 240
"""Drawn faces that the chips are made of."""
COPIES = 50
"""One chip in this number is a copy of the chip before it, in turns re-encoded and byte for byte."""
EVERY = 0.1
"""Seconds between two samples of the memory."""


class Cost(NamedTuple):
    """What one step took."""

    seconds: float
    processor: float
    """Processor seconds of all its processes that ended before it did."""
    peak: float
    """Largest sum of `RssAnon` over the step's processes, MB."""


def main() -> int:
    """Make the chips, run the steps, and print the table; the exit status is 1 if a step failed."""
    arguments = _arguments()
    archives = make(arguments.folder / "chips", arguments.rows, arguments.archive, arguments.side)
    found = {step: _run(step, archives, arguments) for step in arguments.steps}
    _print({step: cost for step, cost in found.items() if cost is not None}, arguments.rows)
    return int(None in found.values())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="folder for the archives and the workspace")
    parser.add_argument("--rows", type=int, default=20_000, help="number of chips")
    parser.add_argument("--archive", type=int, default=20_000, help="chips in an archive")
    parser.add_argument("--side", type=int, default=48, help="side of a chip, px")
    parser.add_argument("--stored", type=int, default=36, help="side of a picture in the pixel store, px")
    parser.add_argument("--network", default="shufflenet_v2_x0_5", help="network that predicts, untrained")
    parser.add_argument("--input", type=int, default=32, help="side of its input, px")
    parser.add_argument("--runner", default="", help="runner of predict; without one it predicts in its own process")
    parser.add_argument("--shard", type=int, default=20_000, help="chips in a part of predict with a runner")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--threads", type=int, default=cores(), help="decoders, and predictions at a time")
    parser.add_argument("--limit", type=float, default=2.0, help="GB of own memory that a step may have")
    return parser.parse_args()


def make(folder: Path, rows: int, archive: int, side: int) -> list[Path]:
    """Archives of `rows` chips in all; those that exist are left as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, rows, archive)
    paths = [folder / f"chips-{side}-{start:09d}-{min(archive, rows - start)}.tar" for start in starts]
    missing = [(path, start) for path, start in zip(paths, starts, strict=True) if not path.exists()]
    if missing:
        faces = _faces(side)
        counts = [min(archive, rows - start) for _, start in missing]
        with ProcessPoolExecutor(cores(), get_context("spawn")) as pool:
            list(pool.map(_pack, *zip(*missing, strict=True), counts, repeat(faces)))
    return paths


def _faces(side: int) -> NDArray[np.float32]:
    """Drawn faces, float32 `(FACES, side, side, 3)`, BGR."""
    files = [encoded(chip, seed=7) for chip in plan(FACES, seed=7)]
    drawn = [photograph(data).image for data in files]
    small = [cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)[..., ::-1] for face in drawn]
    return np.stack(small).astype(np.float32)


def _pack(path: Path, start: int, count: int, faces: NDArray[np.float32]) -> None:
    """Write one archive of chips number `start` to `start + count`."""
    cv2.setNumThreads(1)
    with replacing(path) as draft, tarfile.open(draft, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in _chips(start, count, faces):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def _chips(start: int, count: int, faces: NDArray[np.float32]) -> Iterator[tuple[str, bytes]]:
    """Names, as UTKFace's, and JPEG files: a face, shifted and lit by smooth random fields of its own."""
    random, side = np.random.default_rng(start), faces.shape[1]
    chip, age = faces[0].astype(np.uint8), 20
    for number in range(start, start + count):
        quality, copy = 90, number % COPIES == COPIES - 1 and number > start
        if not copy:
            age = int(random.integers(1, 100))
            light = random.normal(0, 34, (6, 6)).astype(np.float32)
            field = cv2.resize(light, (side, side), interpolation=cv2.INTER_CUBIC)
            face = faces[random.integers(len(faces))]
            chip = cv2.add(face, cv2.merge([field] * 3)).clip(0, 255).astype(np.uint8)
        elif number // COPIES % 2:
            quality = 80
        data = cv2.imencode(".jpg", chip, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        yield f"{age}_{number % 2}_{number % 5}_{number:017d}.jpg.chip.jpg", data


def _run(step: str, archives: Sequence[Path], arguments: argparse.Namespace) -> Cost | None:
    """Run a step in a process of its own and measure it; None if it failed."""
    start, before = time.perf_counter(), _processor()
    process = psutil.Popen([sys.executable, *_command(step, archives, arguments)])
    peak, over = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(EVERY):
            peak = max(peak, _own_memory(process))
            if peak > arguments.limit * 1000:
                process.kill()

    watching = threading.Thread(target=watch)
    watching.start()
    status = process.wait()
    over.set()
    watching.join()
    cost = Cost(time.perf_counter() - start, _processor() - before, peak)
    print(f"{step}: {cost.seconds:,.1f} s, at most {peak:,.0f} MB, exit status {status}", flush=True)
    return cost if status == 0 else None


def _processor() -> float:
    """Processor seconds of the processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _own_memory(process: psutil.Process) -> float:
    """`RssAnon` of a process and those that it has started, MB."""
    total = 0
    with suppress(psutil.Error):
        for one in (process, *process.children(recursive=True)):
            with suppress(OSError, StopIteration):
                lines = Path(f"/proc/{one.pid}/status").read_text().splitlines()
                total += int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) * 1024
    return total / 1e6


def _command(step: str, archives: Sequence[Path], arguments: argparse.Namespace) -> list[str]:
    """Arguments of Python for a step; what an earlier run of it has left is removed."""
    paths, work = [str(path) for path in archives], arguments.folder / step
    shutil.rmtree(work, ignore_errors=True)
    if step == "predict":
        words = ["predict", *paths, "--aligned", "--model", _bundle(arguments), "--workspace", work]
        words += ["--output", arguments.folder / "ages.parquet"]
        if arguments.runner:
            words += ["--runner", arguments.runner, "--workers", arguments.threads, "--shard", arguments.shard]
        code = "from flows.cli import main; main()"
    else:
        code = f"import sys; from benchmarks import millions; millions.{step}(sys.argv[1:])"
        words = [work, arguments.stored, arguments.threads, *paths]
    return ["-c", code, *map(str, words)]


def decode(words: Sequence[str]) -> None:
    """The bare loop, keeping nothing: folder, side of a picture, threads, archives."""
    _, stored, threads, *paths = words
    cv2.setNumThreads(1)
    bare(tuple(map(Path, paths)), int(stored), int(threads))


def ingest(words: Sequence[str]) -> None:
    """The stage as a run has it: workspace, side of a stored picture, threads, archives."""
    workspace, stored, threads, *paths = words
    runtime = Runtime(workspace=Path(workspace), workers=int(threads))
    source = sources.fingerprint(SourceSettings(data=tuple(paths)), runtime)
    done = data.ingest(source, IngestSettings(size=int(stored)), runtime)
    groups = pl.read_parquet(done.table, columns=["group"])["group"].n_unique()
    print(f"{done.count:,} photographs in {groups:,} groups, digest {done.digest}")


def _bundle(arguments: argparse.Namespace) -> Path:
    from benchmarks import untrained  # imports torch, which the steps must not have in memory

    folder: Path = arguments.folder / "bundle"
    if not folder.exists():
        sizes = {"learn.size": arguments.input, "learn.sizes": (), "ingest.size": arguments.stored}
        untrained.bundle(folder, {**sizes, "learn.network": arguments.network, "learn.mirror": False}, "scratch")
    return folder


def _print(found: Mapping[str, Cost], rows: int) -> None:
    table = Table(title=f"{rows:,} chips")
    for name in ("", "minutes", "rows/s", "of the bare loop", "processor s", "peak own memory, MB"):
        table.add_column(name, justify="right" if name else "left")
    for step, cost in found.items():
        share = f"{found['decode'].seconds / cost.seconds:.2f}" if "decode" in found else ""
        rate, used = f"{rows / cost.seconds:,.0f}", f"{cost.processor:,.0f}"
        table.add_row(step, f"{cost.seconds / 60:.1f}", rate, share, used, f"{cost.peak:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    raise SystemExit(main())
