"""What each part of a recipe is worth: one change at a time to the laptop preset, same rows, same seeds, from scratch.

    python -m benchmarks.recipes PATH [PATH ...] [--rows 6000] [--epochs 6] [--seeds 1 2] [--only NAME ...]
        [--threads 1] [--equal-time]

The rows that the preset locks away as test rows are set aside first and not read. A fifth of the others, whole groups
of duplicates, is held out to judge on. Every recipe is trained once a seed, and said as soon as it is; in the table its
figures are those of the mean over seeds, and `error, years` has the interval of the paired difference to the first
recipe over the same rows (cluster bootstrap over groups; both seeds of a photograph count as one group).
Small rows and few epochs rank changes that pay early; they say little about what pays after forty epochs.

All recipes get the same epochs, and those of several networks share them out. With `--equal-time` all get the time that
the first one's epochs take, which is how backbones and sizes should be compared: the pace of each is measured by an
epoch before it is trained. Larger backbones are only tried where `--only` names them.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from agepipe import presets
from agepipe.config import Config
from agepipe.data import ingest, relabel, sources, split
from agepipe.errors import AgepipeError
from agepipe.judge.intervals import Difference, paired
from agepipe.judge.metrics import figures
from agepipe.records import Rows
from agepipe.where import Where
from benchmarks.trying import Bench, Recipe, Told

PLAIN = {"augment.rotate": 0.0, "augment.scale": 0.0, "augment.brightness": 0.0, "augment.contrast": 0.0,
         "augment.grey": 0.0, "augment.erase": 0.0}  # fmt: skip
FIRST = "laptop preset"
RECIPES: dict[str, Recipe] = {
    FIRST: Recipe(),
    "ranges, cross-entropy": Recipe({"target": "ranges"}),
    "ranges, label smoothing 0.1": Recipe({"target": "ranges", "label_smoothing": 0.1}),
    "ranges, class weights": Recipe({"target": "ranges", "class_weights": True}),
    "ranges, ordinal": Recipe({"target": "ordinal"}),
    "without helper heads": Recipe({"helpers": 0.0}),
    "without the average of weights": Recipe({"average": 0.0}),
    "without the mirror image": Recipe({"mirror": False}),
    "flip and crop only": Recipe(PLAIN),
    "no augmentation": Recipe({**PLAIN, "augment.flip": 0.0, "augment.shift": False}),
    "with blur and JPEG": Recipe({"augment.blur": 0.2, "augment.jpeg": 0.2}),
    "with C-Mixup": Recipe({"augment.mix": 1.0}),
    "half the rate": Recipe({"lr": 0.0025}),
    "twice the rate": Recipe({"lr": 0.01}),
    "batches of 128, twice the rate": Recipe({"batch": 128, "lr": 0.01}),
    "growing sizes": Recipe({"sizes": (64, 80, 96)}),
    "two networks, half as long": Recipe(networks=2),
    "three networks, a third as long": Recipe(networks=3),
    "shufflenet_v2_x0_5": Recipe({"network": "shufflenet_v2_x0_5"}),
    "mobilenet_v3_small": Recipe({"network": "mobilenet_v3_small"}),
}
"""Changes to the laptop preset, by name; the first is what the others are compared with."""
LARGER = {name: Recipe({"network": name}) for name in ("regnet_y_400mf", "efficientnet_b0", "resnet18")}
"""Those that take many times as long an epoch."""
ALL = RECIPES | LARGER


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
    parser.add_argument("--rows", type=int, default=6000, help="photographs to use")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of each recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="seeds of weights and batches")
    parser.add_argument("--threads", type=int, default=0, help="of each training; 0 takes one a core")
    parser.add_argument("--only", nargs="+", choices=ALL, help="recipes to try beside the first")
    parser.add_argument("--equal-time", action="store_true", help="the time of the first's epochs for each recipe")
    return parser.parse_args()


def _tried(given: argparse.Namespace) -> dict[str, Told]:
    """Every recipe that was asked for; those that cannot work are refused before any is trained."""
    config = presets.load("laptop", {"source.data": tuple(given.paths)})
    recipes = {name: ALL[name] for name in (FIRST, *(given.only or RECIPES))}
    if not given.equal_time:
        for name, recipe in recipes.items():
            recipe.check(name, config.learn, given.epochs)
    with tempfile.TemporaryDirectory(prefix="agepipe-bench-") as folder:
        where = Where(workspace=Path(folder), threads=given.threads)
        bench = Bench.of(config.learn, development(config, where), given.rows, tuple(given.seeds), where)
        seconds = bench.seconds(recipes[FIRST], given.epochs) if given.equal_time else 0.0
        told = {}
        for name, recipe in recipes.items():
            epochs = bench.epochs(recipe, seconds) if seconds and name != FIRST else given.epochs
            told[name] = bench.told(recipe, epochs)
            _say(name, told[name])
        return told


def development(config: Config, where: Where) -> Rows:
    """The labelled rows that a run of the preset over the same photographs would not lock away."""
    catalogue = ingest.ingest(sources.fingerprint(config.source, where), config.ingest, where)
    return split.split(relabel.relabel(catalogue, config.labels, where), config.split, where).development


def _say(name: str, told: Told) -> None:
    found = dict(figures(*told.judged["likeliest"]))
    said = f"{name}: accuracy {found['accuracy']:.3f}, error {found['mae']:.2f} years"
    print(f"{said}, {told.seconds:.0f} s a seed", file=sys.stderr, flush=True)


def _print(told: dict[str, Told], given: argparse.Namespace) -> None:
    first = next(iter(told.values()))
    count = len(first.groups) // len(given.seeds)
    same = "the time of the first's epochs each" if given.equal_time else f"{given.epochs} epochs each"
    what = f"{given.rows} photographs, {count} of them held out, {same}"
    table = Table(title=f"{what}, {len(given.seeds)} seeds, {torch.get_num_threads()} threads")
    for title in ("recipe", "accuracy", "within one", "by the median range", "macro recall", "error, years",
                  "against the first", "by the mean", "epochs", "seconds"):  # fmt: skip
        table.add_column(title, justify="left" if title == "recipe" else "right", no_wrap=title == "recipe")
    for name, one in told.items():
        table.add_row(name, *_columns(one, first))
    Console(width=180).print(table)


def _columns(one: Told, first: Told) -> Iterator[str]:
    likeliest, median = (dict(figures(*one.judged[name])) for name in ("likeliest", "median"))
    yield f"{likeliest['accuracy']:.3f}"
    yield f"{likeliest['within_one']:.3f}"
    yield f"{median['accuracy']:.3f}, {median['within_one']:.3f}"
    yield f"{likeliest['macro_recall']:.3f}"
    yield f"{likeliest['mae']:.2f}"
    yield (
        ""
        if one is first
        else _difference(paired(one.groups, one.judged["likeliest"], first.judged["likeliest"], "mae"))
    )
    yield f"{dict(figures(*one.mean_years))['mae']:.2f}"
    yield one.epochs
    yield f"{one.seconds:.0f}"


def _difference(found: Difference) -> str:
    return f"{found.difference:+.2f} ({found.low:+.2f} to {found.high:+.2f})"


if __name__ == "__main__":
    main()
