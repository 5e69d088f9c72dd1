"""Trains a recipe and says what it is worth on rows that were held out; `benchmarks.recipes` compares them."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch

from agepipe.config import LearnSettings
from agepipe.data.split import holdout
from agepipe.decide import Decoding
from agepipe.errors import ConfigError
from agepipe.judge.metrics import Judged, checked
from agepipe.learn.batches import Batches, open_store
from agepipe.learn.check_size import check_epochs
from agepipe.learn.fit import BEST, JUDGE_BATCH, fit, network_of
from agepipe.learn.job import Examples, Job
from agepipe.learn.network import AgeNetwork
from agepipe.learn.runs import labelled, threads
from agepipe.records import Rows
from agepipe.settings import changed
from agepipe.where import Where

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

    def learn(self, base: LearnSettings, epochs: int) -> LearnSettings:
        """The setting of each of its networks, for so many epochs in all."""
        return changed(base, {**self.changes, "epochs": max(1, epochs // self.networks)})

    def check(self, name: str, base: LearnSettings, epochs: int) -> None:
        """Refuse so few epochs that some network or size would have none.

        Raises:
            ConfigError: names the recipe.
        """
        if epochs < self.networks:
            raise ConfigError(f"--epochs: {epochs}, but '{name}' has {self.networks} networks to train; give more.")
        learn = self.learn(base, epochs)
        check_epochs(learn, learn.epochs, f"--epochs of '{name}'")


class Told(NamedTuple):
    """What one recipe came to, the rows of all seeds one after another."""

    judged: dict[Decoding, Judged]
    mean_years: Judged
    """The same with the mean of the distribution as the age."""
    groups: np.ndarray
    epochs: str
    """Of each network, after the number of networks where there are several."""
    seconds: float
    """Of all its networks, a seed."""


@dataclass(frozen=True)
class Bench:
    """What all recipes are given."""

    base: LearnSettings
    rows: Rows
    train: pl.DataFrame
    held: pl.DataFrame
    seeds: tuple[int, ...]
    where: Where

    @classmethod
    def of(cls, base: LearnSettings, rows: Rows, count: int, seeds: tuple[int, ...], where: Where) -> "Bench":
        """Hold out whole groups of copies among the first `count` rows."""
        table = labelled(rows).head(count)
        aside = pl.Series(holdout(table, HELD, 40))
        return cls(base, rows, table.filter(~aside), table.filter(aside), seeds, where)

    def seconds(self, recipe: Recipe, epochs: int) -> float:
        """How long so many epochs of this recipe take here and now."""
        return epochs * self._pace(recipe.learn(self.base, epochs))

    def epochs(self, recipe: Recipe, seconds: float) -> int:
        """How many epochs of this recipe, all its networks together, fit into so long; at least one a size."""
        learn = recipe.learn(self.base, 1)
        least = recipe.networks * max(1, len(learn.sizes))
        return max(least, round(seconds / self._pace(learn)))

    def told(self, recipe: Recipe, epochs: int) -> Told:
        """Train it once a seed and judge it on the rows that were held out."""
        start = time.perf_counter()
        learn = recipe.learn(self.base, epochs)
        answers = [self._answers(learn, recipe.networks, seed) for seed in self.seeds]
        seconds = (time.perf_counter() - start) / len(self.seeds)
        labels, ages, groups = (
            np.tile(self.held[name].to_numpy(), len(self.seeds)) for name in ("label", "age", "group")
        )
        shares, median, mean = (np.concatenate(column) for column in zip(*answers, strict=True))
        decodings: tuple[Decoding, ...] = ("likeliest", "median")
        return Told(
            {one: checked(labels, shares, ages, median, one) for one in decodings},
            checked(labels, shares, ages, mean), groups,
            f"{recipe.networks} × {learn.epochs}" if recipe.networks > 1 else str(learn.epochs), seconds,
        )  # fmt: skip

    def _pace(self, learn: LearnSettings) -> float:
        """Seconds of an epoch, as the mean over the sizes that it grows through: measured, and thrown away."""
        learn = changed(learn, {"epochs": max(1, len(learn.sizes))})
        with tempfile.TemporaryDirectory() as folder:
            return fit(self._job(learn, Path(folder))).seconds / learn.epochs

    def _answers(self, learn: LearnSettings, networks: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Probabilities of the ranges, and years by the readout and by the mean, of the held-out rows."""
        members = [self._network(changed(learn, {"seed": seed + APART * place})) for place in range(networks)]
        readout = members[0].readout
        with torch.inference_mode():
            said = torch.stack([self._said(network) for network in members]).mean(0)
            probabilities, years = readout(said)
            return probabilities.numpy(), years.numpy(), readout.expected(said).numpy()

    def _network(self, learn: LearnSettings) -> AgeNetwork:
        with tempfile.TemporaryDirectory() as folder:
            job = self._job(learn, Path(folder))
            return network_of(job, fit(job), job.folder / BEST)

    def _said(self, network: AgeNetwork) -> torch.Tensor:
        store = open_store(self.rows.pixels)
        batches = Batches.whole(store, Examples.of(self.held), JUDGE_BATCH, torch.device("cpu"))
        return torch.cat([network.distribution(batch.images) for batch in batches.in_order()])

    def _job(self, learn: LearnSettings, folder: Path) -> Job:
        return Job(
            folder=folder, pixels=self.rows.pixels, train=Examples.of(self.train),
            validation=Examples.of(self.held[:0]), ranges=self.rows.ranges, learn=learn, metric="mae", device="cpu",
            threads=threads(learn, self.where),
        )  # fmt: skip
