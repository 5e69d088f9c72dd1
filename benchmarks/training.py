"""How fast the training loop is, beside a bare loop of the same network on tensors that lie in memory.

    python -m benchmarks.training [--network shufflenet_v2_x0_5 --size 96] [--rounds 7]

The bare loop has nothing but forward, cross-entropy, backward and AdamW, as anyone would write it, on batches that were
normalised before the clock starts. The pipeline's epochs read the memory-mapped store, crop and mirror, keep the
training figures and write a checkpoint. Both run in a process like that of a training, and in turns, an epoch each,
since the speed of a machine varies; the medians and the median of the rounds' ratios are printed. `--augment` adds
what the laptop preset changes in a picture. The bare loop has the pipeline's precision; with `--float32` it has not, so
that the ratio is what bfloat16 gains.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional

from agepipe.config.presets import load
from agepipe.config.runtime import cores
from agepipe.config.stages import AugmentSettings, LearnSettings
from agepipe.model.ages import AgeRanges
from agepipe.training.backbones import backbone
from agepipe.training.job import Examples, Job
from agepipe.training.loop import Training
from agepipe.training.worker import isolated

AIM = 0.95
MARGIN = 12
"""How much larger a stored picture is than the network's input, px."""


def main() -> int:
    """Run the rounds and print the table; the exit status is 1 when the ratio is below the aim."""
    from benchmarks.training import measured  # the process that trains finds it by this name

    arguments = _arguments()
    rounds = isolated(measured, arguments)
    ratio = statistics.median(plain / own for plain, own in rounds)
    _print(arguments, rounds, ratio)
    return int(ratio < AIM)


def measured(arguments: argparse.Namespace) -> list[tuple[float, float]]:
    """Seconds of each round's epochs, the bare loop's and ours."""
    learn = LearnSettings(
        network=arguments.network, size=arguments.size, batch=arguments.batch, epochs=2000, schedule="constant",
        augment=augmentation(arguments), average=arguments.average,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="agepipe-bench-") as folder:
        job = drawn(Path(folder), learn, arguments.rows, arguments.threads)
        ours = Training(job)
        bare = Bare(job, Way(bfloat16=ours.precision == "bfloat16" and not arguments.float32))
        return [(bare.epoch(), ours.epoch().seconds) for _ in range(arguments.rounds + 1)][1:]


def _arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="epochs that each of the two gets, after one to warm up")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--average", type=float, default=0.0, help="decay of the averaged weights; 0 keeps none")
    parser.add_argument("--float32", action="store_true", help="the bare loop in float32")
    return parser.parse_args()


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark of the training loop."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n", 1)[0])
    parser.add_argument("--network", default="shufflenet_v2_x0_5", help="as learn.network")
    parser.add_argument("--size", type=int, default=96, help="side of its input, px")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rows", type=int, default=2048, help="rows in an epoch")
    parser.add_argument("--augment", action="store_true", help="change pictures as the laptop preset does")
    return parser


def augmentation(arguments: argparse.Namespace) -> AugmentSettings:
    """What is changed in a picture."""
    return load("laptop").learn.augment if arguments.augment else AugmentSettings()


def drawn(folder: Path, learn: LearnSettings, rows: int, threads: int) -> Job:
    """A training of rows of noise, without validation."""
    random = np.random.default_rng(1)
    stored = learn.size + MARGIN
    pixels = folder / "pixels.npy"
    np.save(pixels, random.integers(0, 256, (rows, stored, stored, 3), dtype=np.uint8))
    ranges = AgeRanges.of("utkface")
    ages = random.integers(1, 100, rows)
    nobody = np.empty(0, dtype=np.int64)
    unknown = np.full(rows, -1)
    train = Examples(np.arange(rows), ages, ranges.classes(ages).astype(np.int64), unknown, unknown)
    empty = Examples(*[nobody] * 5)
    return Job(folder / "work", pixels, train, empty, ranges, learn, "loss", device="cpu", threads=threads)


class Way(NamedTuple):
    """How a network is laid out and run."""

    channels_last: bool = True
    bfloat16: bool = False
    compiled: bool = False


USUAL = Way()
"""What the pipeline takes on most CPUs."""


class Bare:
    """The loop without anything."""

    def __init__(self, job: Job, way: Way = USUAL, device: str = "cpu") -> None:
        learn, size = job.learn, job.learn.size
        torch.set_num_threads(job.threads)
        pixels = np.load(job.pixels)[:, :size, :size]
        planes = torch.from_numpy(pixels).float().sub_(128).div_(64).permute(0, 3, 1, 2)
        labels = torch.from_numpy(job.train.labels)
        parts = [slice(start, start + learn.batch) for start in range(0, len(planes) - learn.batch + 1, learn.batch)]
        layout = torch.channels_last if way.channels_last else torch.contiguous_format
        self.batches = [
            (planes[part].clone(memory_format=layout).to(device), labels[part].to(device)) for part in parts
        ]
        self.network = backbone(learn, len(job.ranges)).to(device).to(memory_format=layout).train()
        self.answer = torch.compile(self.network) if way.compiled else self.network
        self.precision = partial(torch.autocast, device, torch.bfloat16, enabled=way.bfloat16)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=learn.lr, weight_decay=learn.weight_decay, fused=True
        )  # fmt: skip

    def epoch(self) -> float:
        """Seconds of one pass over all batches, by whatever algorithms are fastest."""
        torch.use_deterministic_algorithms(False)
        start = time.perf_counter()
        for images, labels in self.batches:
            with self.precision():
                loss = functional.cross_entropy(self.answer(images), labels)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        loss.item()  # a GPU runs behind
        seconds = time.perf_counter() - start
        torch.use_deterministic_algorithms(True)  # as the pipeline's epochs have it
        return seconds


def _print(arguments: argparse.Namespace, rounds: list[tuple[float, float]], ratio: float) -> None:
    title = f"{arguments.network} at {arguments.size} px, batch {arguments.batch}, {arguments.threads} threads"
    table = Table(title=f"{title}, median of {len(rounds)} epochs of {arguments.rows} rows")
    for name in ("", "images/s", "of the bare loop"):
        table.add_column(name, justify="right" if name else "left")
    bare, ours = (statistics.median(column) for column in zip(*rounds, strict=True))
    count = arguments.rows // arguments.batch * arguments.batch
    table.add_row("bare loop", f"{count / bare:,.0f}", "1.00")
    table.add_row("the pipeline's loop", f"{count / ours:,.0f}", f"{ratio:.2f}")
    Console().print(table)


if __name__ == "__main__":
    raise SystemExit(main())
