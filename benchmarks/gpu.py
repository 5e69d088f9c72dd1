"""What one GPU gives: the network alone, the notebook's whole grid, the gpu preset, trials side by side, inference.

    python -m benchmarks.gpu [--minutes 9] [--rows 23705]
    python -m benchmarks.gpu --small                        # a few steps of each part, on a CPU too

One table is printed at the end, and each row as soon as it is known. Every part is given a share of the minutes; a part
that does not fit is cut off, and its row says how much ran and how long all of it would take. The pictures are noise:
weights and pixels do not change how long a step takes. No photograph, no Prefect and no MLflow server is needed.

peak      a product of two 8192×8192 matrices in bfloat16, which is what the share of peak refers to.
network   ResNet-50 at 224 px in bfloat16 (forward, cross-entropy, backward, AdamW), on batches that lie on the device.
grid      the notebook's search: 20 settings × 4 folds × 1 epoch of ResNet-50 at 200 px in batches of 16, as the
          pipeline's own trials, with 1 and with several trials at a time. It took its author 788 minutes.
preset    epochs of the `gpu` preset's final training at its largest size, and how long all of its epochs would take.
trials    the network of `laptop --variant scratch` in 1, 2, 4 and 8 trainings that share the device.
answers   the `laptop` preset's exported network in ONNX Runtime, on the CPU and with its CUDA provider.
"""

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import polars as pl
import torch
from rich.console import Console
from rich.table import Table

from agepipe.config import presets
from agepipe.config.base import changed
from agepipe.config.runtime import Runtime
from agepipe.config.stages import LearnSettings
from agepipe.data.records import Rows
from agepipe.model.ages import AgeRanges
from agepipe.search.records import TrialSpec
from agepipe.search.strategies import plan
from agepipe.search.trial import trial
from agepipe.training.job import Job
from agepipe.training.worker import isolated, warm
from benchmarks.training import Bare, Way, drawn
from benchmarks.untrained import bundle

RESNET50_FLOPS = 24.3e9
"""Forward and backward of ResNet-50 at 224 px, for one image."""
NOTEBOOK_MINUTES = 788
WAYS = {
    "eager": Way(channels_last=False, bfloat16=True),
    "channels_last": Way(bfloat16=True),
    "channels_last, compiled": Way(bfloat16=True, compiled=True),
}
SHARES = {"network": 0.2, "grid": 0.4, "preset": 0.15, "trials": 0.15, "answers": 0.05}
"""What part of the minutes each part may take; the rest is for start-up."""


FAILED = "failed"


class Row(NamedTuple):
    """One line of the table."""

    part: str
    what: str
    figure: str
    note: str = ""


class Scale(NamedTuple):
    """How large everything is: at full size for a GPU, or a few steps for a test on a CPU."""

    matrix: int = 8192
    side: int = 224
    batch: int = 256
    steps: int = 12
    rows: int = 23_705
    grid_side: int = 200
    trials: tuple[int, ...] = (1, 2, 4, 8)
    trial_rows: int = 8192
    answers: tuple[int, ...] = (1, 256)


SMALL = Scale(
    matrix=128, side=32, batch=2, steps=1, rows=560, grid_side=32, trials=(1, 2), trial_rows=128, answers=(1, 8)
)


def main() -> int:
    """Measure each part and print the table; the exit status is 1 when a part failed."""
    options = _options()
    warm()  # otherwise the first trial would wait until torch is imported
    scale = SMALL if options.small else Scale(rows=options.rows)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    failed = False
    table = Table(title=f"agepipe on {_name(device)}, torch {torch.__version__}")
    for name in Row._fields:
        table.add_column(name, overflow="fold")
    parts: dict[str, Callable[[Scale, str, float], Iterator[Row]]] = {
        "network": network, "grid": grid, "preset": preset, "trials": trials, "answers": answers,
    }  # fmt: skip
    for name in options.only:
        for row in _tried(name, parts[name](scale, device, SHARES[name] * options.minutes * 60)):
            print(*row, sep=" | ", flush=True)
            table.add_row(*row)
            failed |= row.figure == FAILED
    Console(width=120).print(table)
    return int(failed)


def _tried(name: str, rows: Iterator[Row]) -> Iterator[Row]:
    """The rows of a part, and one that says so where it failed: the others are measured all the same."""
    try:
        yield from rows
    except Exception as error:  # noqa: BLE001  whatever it is, it must not cost the time on a rented machine
        traceback.print_exc()
        yield Row(name, "", FAILED, f"{type(error).__name__}: {error}"[:200])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything")
    parser.add_argument("--rows", type=int, default=Scale().rows, help="photographs of the notebook's grid")
    parser.add_argument("--small", action="store_true", help="a few steps of each part, to see that it works")
    parser.add_argument("--only", nargs="+", choices=SHARES, default=list(SHARES), help="parts to measure")
    return parser.parse_args()


def _name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "a CPU"


def network(scale: Scale, device: str, seconds: float) -> Iterator[Row]:
    """The peak, and ResNet-50 in each way of `WAYS`."""
    peak = _matrix_rate(scale.matrix, device)
    yield Row("peak", f"{scale.matrix}³ bfloat16 product", f"{peak / 1e12:,.1f} TFLOP/s")
    learn = LearnSettings(network="resnet50", size=scale.side, batch=scale.batch)
    flops = RESNET50_FLOPS * (scale.side / 224) ** 2
    end = time.monotonic() + seconds
    for name, way in WAYS.items():
        if time.monotonic() > end or (way.compiled and device == "cpu"):
            reason = "no time left" if time.monotonic() > end else "compiled on a GPU only"
            yield Row("network", f"ResNet-50, {name}", "not run", reason)
            continue
        first, rate = _bare(learn, way, device, scale.steps)
        share = f"{rate * flops / peak:.0%} of the peak, {first:.0f} s for the first epoch"
        yield Row("network", f"ResNet-50 at {scale.side} px, {name}", f"{rate:,.0f} images/s", share)


def _matrix_rate(side: int, device: str) -> float:
    """Floating-point operations a second of a square bfloat16 product; the best of ten."""
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        total = (left @ right)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - start)
        assert total == total, "a product of finite numbers is finite"
    return 2 * side**3 / best


def _bare(learn: LearnSettings, way: Way, device: str, steps: int) -> tuple[float, float]:
    """Seconds of the first epoch, which prepares everything, and images a second of the better of two others."""
    with tempfile.TemporaryDirectory(prefix="agepipe-bench-") as folder:
        loop = Bare(drawn(Path(folder), learn, learn.batch * steps, threads=4), way, device)
        first = loop.epoch()
        return first, learn.batch * steps / min(loop.epoch(), loop.epoch())


def grid(scale: Scale, device: str, seconds: float) -> Iterator[Row]:
    """The notebook's grid as the pipeline's trials: first one at a time, then several, until all ran or time is up."""
    config = presets.load("notebook", {}, "search-resnet")
    learn = config.learn.model_copy(update={"weights": "none", "size": scale.grid_side})
    if device == "cpu":
        learn = learn.model_copy(update={"network": "shufflenet_v2_x0_5"})
    planned = plan(config.search)
    with tempfile.TemporaryDirectory(prefix="agepipe-bench-") as name:
        rows = _rows(Path(name), scale.rows, scale.grid_side)
        for together, share in ((1, 0.25), (8, 0.75)):
            runtime = Runtime(workspace=Path(name) / f"work-{together}", device=device, gpu_trials=together, threads=1)
            limit = seconds * share
            done, spent = _until(limit, together, partial(_trial, rows, learn, runtime), planned)
            yield Row(
                "grid", f"{done} of {len(planned)} trials, {together} at a time", f"{spent / done:.2f} s a trial",
                f"all {len(planned)}: {spent / done * len(planned) / 60:.1f} min; the notebook {NOTEBOOK_MINUTES} min",
            )  # fmt: skip


def _trial(rows: Rows, learn: LearnSettings, runtime: Runtime, step: TrialSpec) -> None:
    setting, changes, fold = step
    folder = runtime.workspace / f"{setting}-{fold.index}"
    folder.mkdir(parents=True)
    trial(rows, changed(learn, changes), fold, folder, runtime)


def _until(
    limit: float, together: int, work: Callable[[TrialSpec], None], planned: Sequence[TrialSpec]
) -> tuple[int, float]:
    """Run trials side by side, start none after the limit, and return how many ran in how many seconds."""
    start = time.monotonic()

    def one(step: TrialSpec) -> bool:
        if time.monotonic() - start > limit:
            return False
        work(step)
        return True

    with ThreadPoolExecutor(together) as pool:
        done = sum(pool.map(one, planned))
    return done, time.monotonic() - start


def _rows(folder: Path, count: int, side: int) -> Rows:
    """Labelled rows of noise, as ingest, relabel and split leave them."""
    random, ranges = np.random.default_rng(1), AgeRanges.of("utkface")
    pixels = np.lib.format.open_memmap(folder / "pixels.npy", "w+", np.uint8, (count, side, side, 3))
    for start in range(0, count, 1024):
        part = pixels[start : start + 1024]
        part[:] = random.integers(0, 256, part.shape, dtype=np.uint8)
    ages = random.permutation(np.resize(np.arange(1, 101), count))
    table = pl.DataFrame(
        {
            "index": np.arange(count), "age": ages, "label": ranges.classes(ages),
            "group": [f"{place:016x}" for place in range(count)], "digest": [f"{place:064x}" for place in range(count)],
            "look": np.zeros(count, np.uint64), "gender": random.integers(0, 2, count),
            "race": random.integers(0, 5, count),
        }
    )  # fmt: skip
    table.write_parquet(folder / "rows.parquet")
    return Rows(
        digest="0" * 64, table=folder / "rows.parquet", pixels=folder / "pixels.npy", size=side, count=count,
        ranges=ranges, name="noise",
    )  # fmt: skip


def preset(scale: Scale, device: str, seconds: float) -> Iterator[Row]:
    """Epochs of the gpu preset's final training."""
    from benchmarks.gpu import epochs_of  # the process that trains finds it by this name

    config = presets.load("gpu", {"learn.sizes": (), "learn.weights": "none"})  # as long a step as with trained weights
    rows = int(scale.rows * (1 - config.split.test) * (1 - config.final.validation))
    learn = config.learn
    if device == "cpu":
        learn = learn.model_copy(update={"network": "shufflenet_v2_x0_5", "size": scale.side, "batch": scale.batch})
    epochs = isolated(epochs_of, learn, rows, device, seconds)
    each = float(np.median(epochs[1:] or epochs))
    yield Row(
        "preset", f"gpu: {learn.network} at {learn.size} px, batch {learn.batch}, {rows:,} rows, {len(epochs)} epochs",
        f"{rows / each:,.0f} images/s", f"{config.final.epochs} epochs: {each * config.final.epochs / 60:.1f} min",
    )  # fmt: skip


def epochs_of(learn: LearnSettings, rows: int, device: str, seconds: float, most: int = 4) -> list[float]:
    """Seconds of some epochs of the pipeline's own training, in a process of its own; two at least."""
    from agepipe.training.loop import Training

    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="agepipe-bench-") as folder:
        training, found = Training(_job(Path(folder), learn, rows, device)), list[float]()
        while len(found) < 2 or (len(found) < most and time.monotonic() < end):
            found.append(training.epoch().seconds)
    return found


def _job(folder: Path, learn: LearnSettings, rows: int, device: str) -> Job:
    job = drawn(folder, learn, rows, threads=1)
    return Job(**{**vars(job), "device": device})


def trials(scale: Scale, device: str, seconds: float) -> Iterator[Row]:
    """Small trainings that share the device: images a second of all of them together."""
    from benchmarks.gpu import epochs_of  # as above

    learn = presets.load("laptop", {"learn.sizes": ()}, "scratch").learn
    if device == "cpu":
        learn = learn.model_copy(update={"network": "shufflenet_v2_x0_5", "size": scale.side, "batch": 16})
    alone = 0.0
    for together in scale.trials:
        with ThreadPoolExecutor(together) as pool:
            each = seconds / len(scale.trials)
            jobs = [pool.submit(isolated, epochs_of, learn, scale.trial_rows, device, each) for _ in range(together)]
            epochs = [float(np.median(job.result()[1:])) for job in jobs]
        rate = sum(scale.trial_rows / one for one in epochs)
        alone = alone or rate
        yield Row(
            "trials", f"{together} of {learn.network} at {learn.size} px", f"{rate:,.0f} images/s",
            f"{rate / alone:.2f} of one alone",
        )  # fmt: skip


def answers(scale: Scale, _: str, seconds: float) -> Iterator[Row]:
    """The exported network in ONNX Runtime, with each of its providers that is there."""
    size = presets.load("laptop", {}).ingest.size
    wanted = ("CPUExecutionProvider", "CUDAExecutionProvider")
    with tempfile.TemporaryDirectory(prefix="agepipe-bench-") as name:
        bundle(Path(name))
        for provider in wanted:
            if provider not in onnxruntime.get_available_providers():
                yield Row("answers", provider, "not run", "this onnxruntime has no such provider (onnxruntime-gpu has)")
                continue
            session = onnxruntime.InferenceSession(str(Path(name) / "model.onnx"), providers=[provider])
            for batch in scale.answers:
                pictures = np.random.default_rng(1).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
                rate = _answer_rate(session, pictures, seconds / 4)
                yield Row("answers", f"{provider}, {batch} at a time", f"{rate:,.0f} images/s")


def _answer_rate(session: onnxruntime.InferenceSession, pictures: np.ndarray, seconds: float) -> float:
    session.run(None, {"images": pictures})
    start, count = time.perf_counter(), 0
    while count == 0 or (time.perf_counter() - start < seconds and count < 200):
        session.run(None, {"images": pictures})
        count += 1
    return count * len(pictures) / (time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
