"""A whole search the notebook's way and ours: the same photographs, network, rows, epochs and grid.

    python -m benchmarks.notebook_search UTKFACE [--rows 3000] [--network shufflenet_v2_x0_5 --size 64 --batch 16]

The photographs are put into a folder a class first, which neither pays for. Then each way is a process of its own, and
its wall time is that of the whole process, imports and all:

notebook  ImageFolder, PIL and a DataLoader without workers; every photograph decoded, resized, made a tensor and
          normalised at every read; one trial after another in one process; evaluation the same way. PyTorch takes as
          many threads as it likes.
agepipe   the pipeline's ingest and search: a temporary Prefect server, MLflow, the store decoded once, checkpoints,
          trials in processes of their own, as many at a time as there are cores.

Where the difference comes from is timed in the same runs: waiting for pictures, the network (forward, backward, step,
and the evaluation's forward), and what is beside them. One trial of ours that has the machine for itself tells apart
what the loop gives and what trials side by side give.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from agepipe.config.base import changed
from agepipe.config.runtime import Runtime
from agepipe.config.stages import AugmentSettings, Config, IngestSettings, LearnSettings, SearchSettings, SourceSettings
from agepipe.core.artifacts import read_manifest
from agepipe.data import archives
from agepipe.data.filenames import Label, parse
from agepipe.data.records import Rows
from agepipe.data.sources import fingerprint
from agepipe.model.ages import AgeRanges
from agepipe.search.strategies import plan
from agepipe.search.trial import trial

if TYPE_CHECKING:  # each way imports what it needs in its own time
    from torch.utils.data import DataLoader

    from flows.temporary import TemporaryServer

AIM = 3.0
"""Wall time of the notebook's way over ours."""
Seconds = dict[str, float]
"""By part."""
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
MOMENTUM = 0.9


def main() -> int:
    """Run both ways and print the tables; the exit status is 1 when ours is not fast enough."""
    options = _options()
    if options.way:
        print(json.dumps(WAYS[options.way](Path(options.data[0]), options)))
        return 0
    with tempfile.TemporaryDirectory(prefix="agepipe-bench-") as name:
        photographs = Path(name) / "photographs"
        count = unpack(tuple(options.data), photographs, options.rows)
        found = {way: _apart(way, photographs) for way in WAYS}
    _print(found, count, options)
    return int(found["notebook"]["wall"] < AIM * found["agepipe"]["wall"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("data", nargs="+", help="folders or archives of UTKFace photographs, or sample")
    parser.add_argument("--rows", type=int, default=3000, help="photographs")
    parser.add_argument("--network", default="shufflenet_v2_x0_5", help="a torchvision classifier")
    parser.add_argument("--size", type=int, default=64, help="side of its input, px")
    parser.add_argument("--batch", type=int, default=16, help="the notebook took 4, 8 and 16")
    parser.add_argument("--lr", type=float, nargs="+", default=[0.001, 0.005, 0.0005, 0.00025])
    parser.add_argument("--weight-decay", type=float, nargs="+", default=[0.001, 0.0001])
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=1, help="of each trial")
    parser.add_argument("--way", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def unpack(data: tuple[str, ...], folder: Path, count: int) -> int:
    """Put so many of the photographs, evenly taken, into a folder a class, and say how many there are."""
    ranges = AgeRanges.of("utkface")
    with tempfile.TemporaryDirectory() as name:
        source = fingerprint(SourceSettings(data=data, sample_count=max(count, 28)), Runtime(workspace=Path(name)))
        known = [
            (entry.name, label.age, entry.read())
            for location in source.locations
            for entry in archives.entries(location)
            if entry.reject is None and isinstance(label := parse(entry.name), Label)
        ]
    taken = known[:: max(1, len(known) // count)][:count]
    for file, age, content in taken:
        place = folder / str(ranges.classes(np.array([age]))[0]) / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return len(taken)


def _apart(way: str, photographs: Path) -> Seconds:
    given = sys.argv[1:]
    words = given[next((place for place, word in enumerate(given) if word.startswith("--")), len(given)) :]
    command = [sys.executable, "-m", "benchmarks.notebook_search", str(photographs), *words, "--way", way]
    start = time.perf_counter()
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return {**json.loads(said.splitlines()[-1]), "wall": time.perf_counter() - start}


class Clock:
    """Seconds by part."""

    def __init__(self) -> None:
        self.seconds: Seconds = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Add the time of a block to a part."""
        start = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start


def notebook(photographs: Path, options: argparse.Namespace) -> Seconds:
    """One trial after another, every photograph decoded at every read."""
    from sklearn.model_selection import KFold
    from torch.utils.data import DataLoader, Subset
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import Compose, Normalize, Resize, ToTensor

    clock = Clock()
    change = Compose([Resize((options.size, options.size)), ToTensor(), Normalize(MEAN, STD)])
    data = ImageFolder(str(photographs), change)
    for lr, weight_decay in product(options.lr, options.weight_decay):
        for train, validation in KFold(options.folds, shuffle=True, random_state=1).split(range(len(data))):
            learnt = DataLoader(Subset(data, train.tolist()), options.batch, shuffle=True)
            judged = DataLoader(Subset(data, validation.tolist()), options.batch)
            _one_trial(learnt, judged, len(data.classes), (lr, weight_decay), options, clock)
    return clock.seconds


def _one_trial(
    learnt: "DataLoader[Any]", judged: "DataLoader[Any]", classes: int, rates: tuple[float, float],
    options: argparse.Namespace, clock: Clock,
) -> None:  # fmt: skip
    import torch
    from torch.nn.functional import cross_entropy
    from torchvision.models import get_model

    network = get_model(options.network, weights=None, num_classes=classes)
    optimizer = torch.optim.SGD(network.parameters(), lr=rates[0], momentum=MOMENTUM, weight_decay=rates[1])
    for _ in range(options.epochs):
        network.train()
        for images, labels in _read(learnt, clock):
            with clock("network"):
                optimizer.zero_grad()
                loss = cross_entropy(network(images), labels)
                loss.backward()
                optimizer.step()
        network.eval()
        for images, labels in _read(judged, clock):
            with clock("network"), torch.no_grad():
                (network(images).argmax(1) == labels).sum().item()


def _read(loader: "DataLoader[Any]", clock: Clock) -> Iterator[Any]:
    batches, over = iter(loader), object()
    while True:
        with clock("pictures"):
            batch = next(batches, over)
        if batch is over:
            return
        yield batch


def ours(photographs: Path, options: argparse.Namespace) -> Seconds:
    """Ingest and search as the pipeline does them."""
    from flows.entry import enter

    with tempfile.TemporaryDirectory() as name:
        runtime = _where(Path(name), workers=0)
        server = enter(runtime)
        return _flow(photographs, options, runtime, server)


def _flow(
    photographs: Path, options: argparse.Namespace, runtime: Runtime, server: "TemporaryServer | None"
) -> Seconds:
    from prefect import flow

    from agepipe.training.worker import warm
    from flows.search import search
    from tasks import data
    from tasks.ingest import fingerprint as located
    from tasks.ingest import ingest
    from tasks.parent import parent_run
    from tasks.relabel import relabel

    config, clock = _config(photographs, options), Clock()

    @flow
    def pipeline() -> None:
        with parent_run(config, runtime) as run:
            catalogue = run.found(ingest(located(config.source, run.runtime), config.ingest, run.runtime))
            rows = relabel(catalogue, config.labels, run.runtime)
            with clock("search"):
                run.found(search(rows, config.learn, config.search, run.runtime))

    warm()
    with clock("pictures"):  # as `flows.pipelines` does: while the server starts
        data.ingest(fingerprint(config.source, runtime), config.ingest, runtime)
    with clock("server"):
        if server:
            server.wait()
    pipeline()
    return {**clock.seconds, "network": _epochs(runtime) / runtime.trial_count}


def alone(photographs: Path, options: argparse.Namespace) -> Seconds:
    """One trial of ours with all cores for itself."""
    from tasks.data import ingest, relabel

    with tempfile.TemporaryDirectory() as name:
        runtime, config = _where(Path(name), workers=1), _config(photographs, options)
        source = fingerprint(config.source, runtime)
        rows: Rows = relabel(ingest(source, config.ingest, runtime), config.labels, runtime)
        _, settings, fold = plan(config.search)[0]
        folder = runtime.workspace / "trial"
        folder.mkdir()
        return {"network": trial(rows, changed(config.learn, settings), fold, folder, runtime).seconds}


WAYS = {"notebook": notebook, "agepipe": ours, "alone": alone}
"""What runs in a process of its own, by name; each returns seconds by part."""


def _where(folder: Path, workers: int) -> Runtime:
    return Runtime(workspace=folder, tracking=f"sqlite:///{folder}/mlruns/mlflow.db", device="cpu", workers=workers)


def _config(photographs: Path, options: argparse.Namespace) -> Config:
    learn = LearnSettings(
        network=options.network, size=options.size, target="ranges", dropout=0.0, optimizer="sgd", schedule="constant",
        momentum=MOMENTUM, batch=options.batch, epochs=options.epochs, augment=AugmentSettings(flip=0.0, shift=False),
    )  # fmt: skip
    grid = {"lr": tuple(options.lr), "weight_decay": tuple(options.weight_decay)}
    return Config(
        source=SourceSettings(data=(str(photographs),)), ingest=IngestSettings(size=options.size), learn=learn,
        search=SearchSettings(grid=grid, folds=options.folds),
    )  # fmt: skip


def _epochs(runtime: Runtime) -> float:
    """Sum of the epochs' seconds of all trials."""
    manifests = (read_manifest(folder) for folder in (runtime.workspace / "trials").iterdir() if folder.is_dir())
    return float(sum(found["result"]["seconds"] for found in manifests if found is not None))


def _print(found: dict[str, Seconds], count: int, options: argparse.Namespace) -> None:
    trials = len(options.lr) * len(options.weight_decay) * options.folds
    title = (
        f"{trials} trials of {options.epochs} epochs over {count} photographs, {options.network} at {options.size} px"
    )
    table = Table(title=f"{title}, batch {options.batch}; seconds of wall time")
    theirs, own = found["notebook"], found["agepipe"]
    for name in ("", "the notebook's way", "agepipe", "ratio"):
        table.add_column(name, justify="right" if name else "left")
    for part, mine in (("pictures", own["pictures"]), ("network", own["network"])):
        table.add_row(part, f"{theirs[part]:.1f}", f"{mine:.1f}", f"{theirs[part] / mine:.1f}")
    beside = (one["wall"] - one["pictures"] - one["network"] - one.get("server", 0.0) for one in (theirs, own))
    table.add_row("Prefect's server", "", f"{own['server']:.1f}", "")
    table.add_row("beside", *(f"{part:.1f}" for part in beside), "")
    table.add_row("all", f"{theirs['wall']:.1f}", f"{own['wall']:.1f}", f"{theirs['wall'] / own['wall']:.2f}")
    Console().print(table)
    images = count * options.epochs
    rates = (trials * images / theirs["network"], images / found["alone"]["network"], trials * images / own["network"])
    print(
        "Images/s through the network: {:,.0f}, one of our trials alone {:,.0f}, side by side {:,.0f}.".format(*rates)
    )


if __name__ == "__main__":
    raise SystemExit(main())
