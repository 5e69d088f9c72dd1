"""What each part of a recipe is worth: one change at a time to a preset, same rows, same seeds.

    python -m studies.recipes PATH [PATH ...] [--preset laptop] [--variant scratch] [--rows 6000] [--epochs 9]
        [--seeds 1 2] [--only NAME ...] [--threads 1] [--equal-time] [--kept FOLDER]
        [--device cuda --together 8 --minutes 6]

The rows that the preset locks away as test rows are set aside first and not read. A fifth of the others, whole groups
of duplicates, is held out to judge on. Every recipe is trained once a seed, and said as soon as it is. Figures are the
mean over seeds; every one has its interval, and so has the paired difference to the first recipe over the same rows, by
cluster bootstrap over groups, where both seeds of a photograph count as one. Those intervals have the doubt of the rows
in them, not that of the seeds, whose differences stand beside them. Small rows and few epochs rank changes that pay
early; they say little about what pays after forty epochs.

With `--kept` predictions are kept, and their networks never trained again: a killed comparison goes on from its last
epoch, and several side by side make one table. Where a recipe has several processes, each has a thread at least, so its
seconds do not compare.

All recipes get the same epochs, and those of several networks share them out. With `--equal-time` all get the time that
the first one's epochs take, which is how backbones and sizes should be compared: the pace of each is measured by an
epoch before it is trained. A preset with pretrained weights has other changes than one with random weights. Other
networks are only tried where `--only` names them.

On a GPU small networks leave most of it idle, so several are trained at a time (`--together`); no training is begun
after `--minutes`, those that run then are ended, and the tables have what is finished.
"""

import argparse
import math
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from agepipe.config import presets
from agepipe.config.runtime import Runtime
from agepipe.config.stages import Config, EvaluateSettings, LearnSettings
from agepipe.core.errors import AgepipeError
from agepipe.data import sources
from agepipe.data.records import Rows
from agepipe.evaluation.bootstrap import bootstrap
from agepipe.evaluation.comparison import paired_differences
from agepipe.evaluation.metrics import figures
from agepipe.model.decoding import Decoding
from agepipe.training.worker import interrupt, resume
from studies.trying import Bench, Recipe, Told
from tasks.data import ingest, relabel, split

PLAIN = {"augment.rotate": 0.0, "augment.scale": 0.0, "augment.brightness": 0.0, "augment.contrast": 0.0,
         "augment.grey": 0.0, "augment.erase": 0.0}  # fmt: skip
STRONG = {"augment.rotate": 15.0, "augment.scale": 0.2, "augment.brightness": 0.4, "augment.contrast": 0.4,
          "augment.erase": 0.5}  # fmt: skip
ADAMW = {"optimizer": "adamw", "nesterov": False, "lr": 0.003, "weight_decay": 0.05}
BARE = {**PLAIN, **ADAMW, "augment.flip": 0.0, "augment.shift": False, "sizes": (), "target": "ranges", "helpers": 0.0,
        "average": 0.0, "mirror": False, "decoding": "likeliest"}  # fmt: skip
FIRST = "the preset"
ALWAYS: dict[str, Recipe] = {
    FIRST: Recipe(),
    "ranges, cross-entropy": Recipe({"target": "ranges"}),
    "without helper heads": Recipe({"helpers": 0.0}),
    "without the average of weights": Recipe({"average": 0.0}),
    "without the mirror image": Recipe({"mirror": False}),
    "flip and crop only": Recipe(PLAIN),
    "no augmentation": Recipe({**PLAIN, "augment.flip": 0.0, "augment.shift": False}),
    "stronger augmentation": Recipe(STRONG),
    "without growing sizes": Recipe({"sizes": ()}),
    "with C-Mixup": Recipe({"augment.mix": 1.0}),
    "with blur and JPEG": Recipe({"augment.blur": 0.2, "augment.jpeg": 0.2}),
    "half the rate": Recipe(rate=0.5),
    "twice the rate": Recipe(rate=2.0),
}
"""Changes to any preset, by name; the first is what the others are compared with."""
RANDOM = {
    "AdamW": Recipe(ADAMW),
    "ranges, label smoothing 0.1": Recipe({"target": "ranges", "label_smoothing": 0.1}),
    "ranges, class weights": Recipe({"target": "ranges", "class_weights": True}),
    "ranges, ordinal": Recipe({"target": "ordinal"}),
    "batches of 64, half the rate": Recipe({"batch": 64}, rate=0.5),
    "two processes, half a batch each": Recipe(processes=2),
    "two networks, half as long": Recipe(networks=2),
    "three networks, a third as long": Recipe(networks=3),
    "the recipe of 2026-11-25": Recipe(
        {**ADAMW, "network": "shufflenet_v2_x1_0", "sizes": (), "lr": 0.005, "batch": 64}
    ),
    "a bare ResNet": Recipe(BARE),
}
"""Changes to a preset with random weights."""
LITE = {"network": "timm/tf_efficientnet_lite0", "sizes": (), "layer_decay": 1.0, "clip": 0.0, "lr": 0.002}
PRETRAINED = {
    "from random weights": Recipe({"network": "face_resnet_bn", "weights": "none", "layer_decay": 1.0, "lr": 0.002}),
    "one rate for all layers": Recipe({"layer_decay": 1.0}),
    "layer decay 0.7": Recipe({"layer_decay": 0.7}),
    "gradients not clipped": Recipe({"clip": 0.0}),
    "lite0 with weights of ImageNet": Recipe(LITE),
}
"""Changes to a preset with pretrained weights."""
NETWORKS = ("shufflenet_v2_x0_5", "mobilenet_v3_small", "regnet_y_400mf", "efficientnet_b0", "resnet18")
ON_DEMAND = {
    **{name: Recipe({"network": name, "weights": "none"}) for name in NETWORKS},
    "lite0": Recipe({**ADAMW, **LITE, "weights": "pretrained"}),
}  # fmt: skip
"""Other networks, some many times as long an epoch."""
ALL = ALWAYS | RANDOM | PRETRAINED | ON_DEMAND


def usual(learn: LearnSettings) -> dict[str, Recipe]:
    """The recipes to compare with a preset that learns so."""
    return ALWAYS | (RANDOM if learn.weights == "none" else PRETRAINED)


def main() -> None:
    """Train every recipe and print the table."""
    given = _arguments()
    try:
        told = _tried(given)
    except AgepipeError as error:
        sys.exit(str(error))
    _print(told, given)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("paths", nargs="+", help="folders or archives of UTKFace photographs")
    parser.add_argument("--preset", default="laptop", help="preset that the recipes change")
    parser.add_argument("--variant", default="", help="variant of the preset")
    parser.add_argument("--rows", type=int, default=6000, help="photographs to use")
    parser.add_argument("--epochs", type=int, default=9, help="epochs of each recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="seeds of weights and batches")
    parser.add_argument("--threads", type=int, default=0, help="of each training; 0 takes one a core")
    parser.add_argument("--only", nargs="+", choices=ALL, help="recipes to try beside the first")
    parser.add_argument("--equal-time", action="store_true", help="the time of the first's epochs for each recipe")
    parser.add_argument("--kept", type=Path, help="folder of what the networks said, to go on from")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--together", type=int, default=1, help="trainings at a time")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which trainings are ended")
    return parser.parse_args()


def _tried(given: argparse.Namespace) -> dict[str, Told]:
    """Every recipe that was asked for; those that cannot work are refused before any is trained."""
    config = presets.load(given.preset, {"source.data": tuple(given.paths)}, given.variant)
    recipes = {name: ALL[name] for name in (FIRST, *(given.only or usual(config.learn)))}
    if not given.equal_time:
        for name, recipe in recipes.items():
            recipe.check(name, config.learn, given.epochs)
    with tempfile.TemporaryDirectory(prefix="agepipe-bench-") as folder:
        runtime = Runtime(workspace=Path(folder), threads=given.threads, device=given.device)
        kept = given.kept or runtime.workspace / "kept"
        bench = Bench.of(config.learn, development(config, runtime), given.rows, tuple(given.seeds), runtime, kept)
        seconds = bench.seconds(recipes[FIRST], given.epochs) if given.equal_time else 0.0

        def one(name: str) -> Told:
            recipe = recipes[name]
            epochs = bench.epochs(recipe, seconds) if seconds and name != FIRST else given.epochs
            told = bench.told(recipe, epochs)
            _say(name, told)
            return told

        return _within(given.minutes, given.together, one, list(recipes))


def _within(minutes: float, together: int, one: Callable[[str], Told], names: list[str]) -> dict[str, Told]:
    """Those that are finished in time, several side by side, in their order."""
    if together == 1 and math.isinf(minutes):
        return {name: one(name) for name in names}
    timer = threading.Timer(min(minutes * 60, threading.TIMEOUT_MAX), interrupt)
    timer.daemon = True
    timer.start()
    with ThreadPoolExecutor(together) as pool:
        runs = {name: pool.submit(one, name) for name in names}
    timer.cancel()
    resume()
    return {name: run.result() for name, run in runs.items() if not isinstance(run.exception(), KeyboardInterrupt)}


def development(config: Config, runtime: Runtime) -> Rows:
    """The labelled rows that a run of the preset over the same photographs would not lock away."""
    catalogue = ingest(sources.fingerprint(config.source, runtime), config.ingest, runtime)
    rows = relabel(catalogue, config.labels, runtime)
    return split(rows, config.split, None, runtime).development


def _say(name: str, told: Told) -> None:
    found = figures(told.judged())
    said = f"{name}: accuracy {found['accuracy']:.3f}, error {found['mae']:.2f} years"
    print(f"{said}, {told.seconds:.0f} s a seed", file=sys.stderr, flush=True)


def _print(told: dict[str, Told], given: argparse.Namespace) -> None:
    first = next(iter(told.values()))
    same = "the time of the first's epochs each" if given.equal_time else f"{given.epochs} epochs each"
    what = f"{len(first.held)} photographs held out, {same}, seeds {', '.join(map(str, given.seeds))}"
    _table(f"{what}: figures with their 95 % intervals", told, {
        "accuracy": lambda one: _figure(one, "accuracy"), "within one": lambda one: _figure(one, "within_one"),
        "macro recall": lambda one: _figure(one, "macro_recall"), "error, years": lambda one: _figure(one, "mae", 2),
        "epochs": lambda one: one.epochs, "seconds": lambda one: f"{one.seconds:.0f}",
    })  # fmt: skip
    _table(f"{what}: error in years against the first, and other ways to answer", told, {
        "against the first": lambda one: "" if one is first else _difference(one, first),
        "seed by seed": lambda one: "" if one is first else _by_seed(one, first),
        "error by the mean": lambda one: _figure(one, "mae", 2, mean=True),
        "accuracy by the median": lambda one: _figure(one, "accuracy", decoding="median"),
        "within one by the median": lambda one: _figure(one, "within_one", decoding="median"),
    })  # fmt: skip


def _table(title: str, told: dict[str, Told], columns: dict[str, Callable[[Told], str]]) -> None:
    table = Table("recipe", title=title)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for name, one in told.items():
        table.add_row(name, *(said(one) for said in columns.values()))
    Console(width=200).print(table)


def _figure(one: Told, name: str, digits: int = 3, decoding: Decoding = "likeliest", *, mean: bool = False) -> str:
    judged = one.judged(decoding, mean=mean)
    low, high = bootstrap(one.groups, judged, wanted=(name,))[name]
    return f"{figures(judged)[name]:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _difference(one: Told, first: Told) -> str:
    settings = EvaluateSettings(seed=0)
    found = paired_differences(one.groups, one.judged(), first.judged(), settings, figures=("mae",)).figures["mae"]
    return f"{found.difference:+.2f} ({found.low:+.2f} to {found.high:+.2f})"


def _by_seed(one: Told, first: Told) -> str:
    ours, theirs = ([float(np.mean(seed.judged().errors)) for seed in told.seeds] for told in (one, first))
    return ", ".join(f"{mine - other:+.2f}" for mine, other in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    main()
