"""Trains a recipe and says what it is worth on rows that were held out; `studies.recipes` compares them."""

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch

from agepipe.config.base import changed
from agepipe.config.runtime import Runtime
from agepipe.config.stages import LearnSettings
from agepipe.core.artifacts import replacing, turn
from agepipe.core.errors import ConfigError
from agepipe.core.record import digest_of
from agepipe.data.pixel_store import open_pixels
from agepipe.data.records import Rows
from agepipe.data.stratify import holdout
from agepipe.evaluation.metrics import Predictions, checked
from agepipe.model.decoding import Decoding
from agepipe.search.trial import VERSION
from agepipe.training.batches import Batches
from agepipe.training.job import Examples, Job
from agepipe.training.loop import BEST, VALIDATION_BATCH, network_of
from agepipe.training.network import AgeNetwork
from agepipe.training.workdir import labelled, threads, train_in_processes

HELD = 0.2
"""Share of the rows that is held out."""
APART = 1000
"""Between the seeds of networks that are averaged, so that none is another seed's."""


class Recipe(NamedTuple):
    """One way to train."""

    changes: dict[str, Any] = {}
    """Fields of `learn` that it changes in the preset, by dotted name."""
    networks: int = 1
    """Networks whose distributions are averaged; the epochs are shared out among them."""
    processes: int = 1
    """Processes that share every batch of a training."""
    rate: float = 1.0
    """By what its learning rate is multiplied."""

    def learn(self, base: LearnSettings, epochs: int) -> LearnSettings:
        """The setting of each of its networks, for so many epochs in all."""
        learn = changed(base, {**self.changes, "epochs": max(1, epochs // self.networks)})
        return changed(learn, {"lr": learn.lr * self.rate})

    def check(self, name: str, base: LearnSettings, epochs: int) -> None:
        """Refuse so few epochs that some network or size would have none.

        Raises:
            ConfigError: names the recipe.
        """
        if epochs < self.networks:
            raise ConfigError(f"--epochs: {epochs}, but '{name}' has {self.networks} networks to train; give more.")
        learn = self.learn(base, epochs)
        learn.check_epochs(learn.epochs, f"--epochs of '{name}'")


class Said(NamedTuple):
    """What the networks of one seed say of the held-out rows."""

    probabilities: np.ndarray
    """Of the ranges, float32 `(rows, ranges)`."""
    years: np.ndarray
    """By the readout that the target has, float32 `(rows,)`."""
    mean_years: np.ndarray
    """By the mean of the distribution."""
    seconds: float
    """That the trainings took."""


@dataclass(frozen=True)
class Told:
    """What one recipe came to, the rows of all seeds one after another."""

    said: tuple[Said, ...]
    """Seed by seed."""
    held: pl.DataFrame
    epochs: str
    """Of each network, after the number of networks where there are several."""

    @property
    def seconds(self) -> float:
        """Of all its networks, a seed."""
        return float(np.mean([one.seconds for one in self.said]))

    @property
    def groups(self) -> np.ndarray:
        """Group of copies of each row: the same for all seeds, so that they count as one photograph."""
        return self._known("group")

    @property
    def seeds(self) -> "tuple[Told, ...]":
        """Each seed by itself."""
        return tuple(replace(self, said=(one,)) for one in self.said)

    def judged(self, decoding: Decoding = "likeliest", *, mean: bool = False) -> Predictions:
        """The rows and what was said of them; `mean` takes the mean of the distribution as the age."""
        years = np.concatenate([one.mean_years if mean else one.years for one in self.said])
        probabilities = np.concatenate([one.probabilities for one in self.said])
        return checked(self._known("label"), probabilities, self._known("age"), years, decoding)

    def _known(self, column: str) -> np.ndarray:
        return np.tile(self.held[column].to_numpy(), len(self.said))


@dataclass(frozen=True)
class Bench:
    """What all recipes are given."""

    base: LearnSettings
    rows: Rows
    train: pl.DataFrame
    held: pl.DataFrame
    seeds: tuple[int, ...]
    runtime: Runtime
    kept: Path
    """Folder of what was said; what lies there is not trained again."""

    @classmethod
    def of(
        cls, base: LearnSettings, rows: Rows, count: int, seeds: tuple[int, ...], runtime: Runtime, kept: Path
    ) -> "Bench":  # fmt: skip
        """Hold out whole groups of copies among the first `count` rows."""
        table = labelled(rows).head(count)
        aside = pl.Series(holdout(table, HELD, 40))
        kept.mkdir(parents=True, exist_ok=True)
        return cls(base, rows, table.filter(~aside), table.filter(aside), seeds, runtime, kept)

    def seconds(self, recipe: Recipe, epochs: int) -> float:
        """How long so many epochs of this recipe take here and now."""
        return epochs * self._pace(recipe)

    def epochs(self, recipe: Recipe, seconds: float) -> int:
        """How many epochs of this recipe, all its networks together, fit into so long; at least one a size."""
        learn = recipe.learn(self.base, 1)
        least = recipe.networks * max(1, len(learn.sizes))
        return max(least, round(seconds / self._pace(recipe)))

    def told(self, recipe: Recipe, epochs: int) -> Told:
        """Train it once a seed, where that was not done before, and judge it on the rows that were held out."""
        learn = recipe.learn(self.base, epochs)
        said = tuple(self.say(recipe, changed(learn, {"seed": seed})) for seed in self.seeds)
        count = f"{recipe.networks} × {learn.epochs}" if recipe.networks > 1 else str(learn.epochs)
        return Told(said, self.held, count)

    def _pace(self, recipe: Recipe) -> float:
        """Seconds of an epoch, as the mean over the sizes that it grows through; measured once."""
        learn = recipe.learn(self.base, 1)
        learn = changed(learn, {"epochs": max(1, len(learn.sizes))})
        place = self._place("pace", recipe, learn).with_suffix(".txt")
        if not place.is_file():
            with tempfile.TemporaryDirectory() as folder:
                seconds = train_in_processes(self._job(learn, recipe, Path(folder)), recipe.processes).seconds
            with replacing(place) as draft:
                draft.write_text(str(seconds / learn.epochs))
        return float(place.read_text())

    def say(self, recipe: Recipe, learn: LearnSettings) -> Said:
        """What the networks of one setting say, trained where that was not done before."""
        place = self._place("recipe", recipe, learn).with_suffix(".npz")
        with turn(place):
            if not place.is_file():
                said = self._answers(recipe, learn)
                with replacing(place) as draft, draft.open("wb") as file:
                    np.savez(file, **said._asdict())
        with np.load(place) as found:
            return Said(**{**found, "seconds": float(found["seconds"])})

    def _place(self, kind: str, recipe: Recipe, learn: LearnSettings) -> Path:
        """Where an answer lies that depends on these, on the rows and on the threads alone."""
        what = (self.rows, self.train["digest"].to_list(), recipe.networks, recipe.processes)
        return self.kept / digest_of(kind, VERSION, learn, self._job(learn, recipe, self.kept).threads, *what)[:16]

    def _answers(self, recipe: Recipe, learn: LearnSettings) -> Said:
        seeds = [learn.seed + APART * place for place in range(recipe.networks)]
        members, seconds = zip(*(self._network(changed(learn, {"seed": seed}), recipe) for seed in seeds), strict=True)
        readout = members[0].readout
        with torch.inference_mode():
            distribution = torch.stack([self._distribution(network) for network in members]).mean(0)
            probabilities, years = readout(distribution)
            mean_years = readout.expected(distribution)
            return Said(probabilities.numpy(), years.numpy(), mean_years.numpy(), sum(seconds))

    def _network(self, learn: LearnSettings, recipe: Recipe) -> tuple[AgeNetwork, float]:
        """A trained network and the seconds that took; a training that was interrupted goes on from its last epoch."""
        job = self._job(learn, recipe, self._place("training", recipe, learn))
        job.folder.mkdir(exist_ok=True)
        fitted = train_in_processes(job, recipe.processes)
        network = network_of(job, fitted, job.folder / BEST)
        shutil.rmtree(job.folder)
        return network, fitted.seconds

    def _distribution(self, network: AgeNetwork) -> torch.Tensor:
        store = open_pixels(self.rows.pixels)
        device = torch.device("cuda" if self.runtime.device == "cuda" else "cpu")
        batches = Batches.for_validation(store, Examples.of(self.held), VALIDATION_BATCH, device)
        network = network.to(device)
        found = torch.cat([network.distribution(batch.images).cpu() for batch in batches.in_order()])
        network.cpu()
        return found

    def _job(self, learn: LearnSettings, recipe: Recipe, folder: Path) -> Job:
        runtime = self.runtime.model_copy(update={"processes": recipe.processes})
        return Job(
            folder=folder, pixels=self.rows.pixels, train=Examples.of(self.train),
            validation=Examples.of(self.held[:0]), ranges=self.rows.ranges, learn=learn, metric="mae",
            device=self.runtime.device, threads=threads(learn, runtime),
        )  # fmt: skip
