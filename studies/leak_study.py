"""By how much a network flatters itself that is carried through folds and grid, and then tested on a fresh re-split.

    python -m studies.leak_study utkface-sample.tar      # 700 photographs: minutes on two cores
    python -m studies.leak_study sample --seeds 1        # drawn faces

Two procedures are given the same photographs, network, grid and epochs:

carried  as the notebook did: ONE network goes through every fold of every setting; then the rows are split afresh at
         random, 60 / 20 / 20, copies or not, the network is tuned on with the best setting, and what it gets on the
         new 'test' part is reported. It was fitted on nearly all of that part before.
fresh    as agepipe does: the test rows are locked first, copies with them; every trial starts a network of its own; the
         best setting is trained from scratch, and what it gets on the locked rows is reported.

`really` is what the same two networks get on rows that were kept from both procedures; the gap between the two is how
far the report is from the truth. `seen` is the share of the reported test rows that the network had been fitted on.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import polars as pl

from agepipe.config.base import changed
from agepipe.config.runtime import Runtime
from agepipe.config.stages import (
    AugmentSettings,
    IngestSettings,
    LabelSettings,
    LearnSettings,
    SearchSettings,
    SourceSettings,
    SplitSettings,
)
from agepipe.data.pixel_store import open_pixels
from agepipe.data.records import Rows
from agepipe.data.sources import fingerprint
from agepipe.data.stratify import folds, holdout
from agepipe.search.strategies import plan
from agepipe.training.batches import Batches
from agepipe.training.epoch_predictions import EpochPredictions
from agepipe.training.job import Examples, Fitted, Job
from agepipe.training.loop import BEST, CHECKPOINT, VALIDATION_BATCH, fit, network_of
from agepipe.training.workdir import labelled, threads
from tasks.data import ingest, relabel, split

METRIC = "weighted_recall"
"""What the notebook reported; averaged by class size, recall is accuracy."""
SHOWN = (METRIC, "macro_recall")
KEPT = 0.3
"""Share of the photographs that is kept from both procedures."""


@dataclass(frozen=True)
class Study:
    """What both procedures are given, and the rows that neither is."""

    given: Rows
    kept: pl.DataFrame
    learn: LearnSettings
    search: SearchSettings
    final: int
    """Epochs of the last training; patience as in the notebook."""
    folder: Path
    seed: int


@dataclass(frozen=True)
class Told:
    """Figures of one network: what its procedure reports and what it really gets, and how much of the former it saw."""

    reported: dict[str, float]
    really: dict[str, float]
    seen: float


def carried(study: Study) -> Told:
    """One network through all folds of all settings, tuned and tested on a random re-split of the same rows."""
    table, weights = labelled(study.given), "none"
    scores: dict[int, list[float]] = {}
    seen: set[str] = set()
    for place, changes, fold in plan(study.search):
        assigned = folds(table, fold.count, fold.seed)
        learn = changed(study.learn, {**changes, "weights": weights})
        job = _job(study, f"carried-{place}-{fold.index}", learn, *_parts(table, assigned == fold.index))
        scores.setdefault(place, []).append(fit(job).metrics["accuracy"])
        seen |= set(table.filter(assigned != fold.index)["digest"])
        weights = str(job.folder / CHECKPOINT)  # as they were left, not as they were best
    order = np.random.default_rng(study.seed).permutation(len(table))
    validation, test, train = (table[part] for part in np.split(order, [len(table) // 5, 2 * len(table) // 5]))
    learn = changed(study.learn, {**_best(study, scores), "weights": weights, "epochs": study.final})
    job = _job(study, "carried", learn, train, validation)
    return _told(job, fit(job), test, study.kept, seen)


def fresh(study: Study) -> Told:
    """A network of its own for every trial and for the last training; the test rows locked before the first of them."""
    settings = SplitSettings(test=0.2, seed=study.seed, extend=False)
    locked = split(study.given, settings, None, Runtime(workspace=study.folder))
    table, test = labelled(locked.development), labelled(locked.test)
    scores: dict[int, list[float]] = {}
    for place, changes, fold in plan(study.search):
        aside = folds(table, fold.count, fold.seed) == fold.index
        job = _job(study, f"fresh-{place}-{fold.index}", changed(study.learn, changes), *_parts(table, aside))
        scores.setdefault(place, []).append(fit(job).metrics["accuracy"])
    learn = changed(study.learn, {**_best(study, scores), "epochs": study.final})
    job = _job(study, "fresh", learn, *_parts(table, holdout(table, 0.25, study.seed)))
    return _told(job, fit(job), test, study.kept, set(table["digest"]))


def _parts(table: pl.DataFrame, aside: np.ndarray) -> tuple[pl.DataFrame, pl.DataFrame]:
    return table.filter(pl.Series(~aside)), table.filter(pl.Series(aside))


def _job(study: Study, name: str, learn: LearnSettings, train: pl.DataFrame, validation: pl.DataFrame) -> Job:
    return Job(
        folder=study.folder / name, pixels=study.given.pixels, train=Examples.of(train),
        validation=Examples.of(validation), ranges=study.given.ranges, learn=learn, metric="accuracy", patience=7,
        device="cpu", threads=threads(learn, Runtime()),
    )  # fmt: skip


def _best(study: Study, scores: dict[int, list[float]]) -> dict[str, object]:
    won = max(scores, key=lambda place: mean(scores[place]))
    return next(changes for place, changes, _ in plan(study.search) if place == won)


def _told(job: Job, fitted: Fitted, test: pl.DataFrame, kept: pl.DataFrame, before: set[str]) -> Told:
    reported, really = (_figures(job, fitted, rows) for rows in (test, kept))
    return Told(reported, really, len(test.filter(pl.col("digest").is_in(list(before)))) / len(test))


def _figures(job: Job, fitted: Fitted, rows: pl.DataFrame) -> dict[str, float]:
    network = network_of(job, fitted, job.folder / BEST)
    answers = EpochPredictions(network, job.learn.decoding)
    device = next(network.parameters()).device
    for batch in Batches.for_validation(
        open_pixels(job.pixels), Examples.of(rows), VALIDATION_BATCH, device
    ).in_order():
        answers.add(batch, *(part.detach() for part in network(batch.images)))
    return answers.figures("")


PROCEDURES: dict[str, Callable[[Study], Told]] = {
    "carried, re-split": carried,
    "fresh, locked rows": fresh,
}


def studied(rows: Rows, options: argparse.Namespace, folder: Path, seed: int) -> tuple[Study, dict[str, Told]]:
    """Both procedures on one draw of what is given and what is kept."""
    kept = SplitSettings(test=KEPT, seed=1000 + seed, extend=False)
    parts = split(rows, kept, None, Runtime(workspace=folder))
    learn = LearnSettings(
        network=options.network, size=options.size, target="ranges", dropout=0.2, head="v2", optimizer="sgd",
        schedule="constant", weight_decay=1e-4, batch=16, epochs=options.epochs, seed=seed,
        augment=AugmentSettings(flip=0.0, shift=False),
    )  # fmt: skip
    grid = {"lr": tuple(options.lr), "weight_decay": tuple(options.weight_decay)}
    search = SearchSettings(grid=grid, folds=options.folds, seed=seed, metric="accuracy")
    study = Study(parts.development, labelled(parts.test), learn, search, options.final, folder / f"{seed}", seed)
    return study, {name: procedure(study) for name, procedure in PROCEDURES.items()}


def summary(found: Sequence[dict[str, Told]]) -> str:
    """What each procedure reports and really gets as means over seeds, and the gap with its smallest and largest."""
    lines = [f"{'':<20}{'figure':<17}{'reported':>9}{'really':>9}{'gap':>9}   {'over seeds':<19}{'seen':>6}"]
    for name in PROCEDURES:
        told = [one[name] for one in found]
        for figure in SHOWN:
            reported, really = (mean(getattr(one, part)[figure] for one in told) for part in ("reported", "really"))
            gaps = sorted(one.reported[figure] - one.really[figure] for one in told)
            lines.append(
                f"{name:<20}{figure:<17}{reported:>9.3f}{really:>9.3f}{reported - really:>+9.3f}   "
                f"{gaps[0]:+.3f} to {gaps[-1]:+.3f}   {mean(one.seen for one in told):>6.0%}"
            )
    return "\n".join(lines)


def _gaps(told: dict[str, Told]) -> str:
    """By how much each report of one seed is above the truth."""
    return ", ".join(f"{name} {one.reported[METRIC] - one.really[METRIC]:+.3f}" for name, one in told.items())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help="folders or archives of UTKFace photographs, or sample")
    parser.add_argument("--count", type=int, default=1000, help="faces that `sample` draws")
    parser.add_argument("--network", default="shufflenet_v2_x0_5")
    parser.add_argument("--size", type=int, default=64, help="px")
    parser.add_argument("--lr", type=float, nargs="+", default=[0.01, 0.02, 0.04, 0.08])
    parser.add_argument("--weight-decay", type=float, nargs="+", default=[1e-4, 1e-3])
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=1, help="of each trial")
    parser.add_argument("--final", type=int, default=12, help="epochs of the last training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    return parser.parse_args()


def main() -> None:
    """Read the photographs, run both procedures for each seed, print the table."""
    options = _options()
    with tempfile.TemporaryDirectory() as name:
        folder, runtime = Path(name), Runtime(workspace=Path(name))
        source = fingerprint(SourceSettings(data=tuple(options.data), sample_count=options.count), runtime)
        rows = relabel(ingest(source, IngestSettings(size=options.size), runtime), LabelSettings(), runtime)
        found = []
        for seed in options.seeds:
            found.append(studied(rows, options, folder, seed))
            print(f"seed {seed}: {_gaps(found[-1][1])}", file=sys.stderr, flush=True)
    study = found[0][0]
    settings = len(options.lr) * len(options.weight_decay)
    print(
        f"{rows.count} photographs: {study.given.count} given to both procedures, {len(study.kept)} kept from both.\n"
        f"{options.network} at {options.size} px from random weights; {settings} settings × {options.folds} folds × "
        f"{options.epochs} epochs, then up to {options.final}; seeds {', '.join(map(str, options.seeds))}.\n\n"
        + summary([told for _, told in found])
    )


if __name__ == "__main__":
    main()
