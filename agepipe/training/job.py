"""What a training is given and what it gives back: plain values that pass between processes, without torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, PlainSerializer, PlainValidator, TypeAdapter

from agepipe.config.stages import LearnSettings, Metric
from agepipe.model.ages import AgeRanges

Channels = tuple[float, float, float]
"""One number for each of red, green and blue."""
Order = Literal["age", "text"]
"""How the outputs of a network from elsewhere stand; see `agepipe.training.import_weights.read`."""


_NUMBERS = TypeAdapter(list[Annotated[int, Field(ge=-(2**63), lt=2**63)]])


def _column(found: object) -> NDArray[np.int64]:
    return found if isinstance(found, np.ndarray) else np.array(_NUMBERS.validate_python(found), np.int64)


Column = Annotated[NDArray[np.int64], PlainValidator(_column), PlainSerializer(lambda column: column.tolist())]
"""Whole numbers `(n,)`, in JSON as a list."""


@dataclass(frozen=True)
class Examples:
    """Labelled rows, each by its place in the pixel store."""

    index: Column
    """Positions in the pixel store, `(n,)`."""
    ages: Column
    """Years, `(n,)`."""
    labels: Column
    """Classes, `(n,)`."""
    genders: Column
    """0 male, 1 female, -1 not known, `(n,)`."""
    races: Column
    """UTKFace's numbers 0 to 4, -1 not known, `(n,)`."""

    @classmethod
    def of(cls, table: pl.DataFrame) -> Self:
        """The rows of a labelled table, in its order."""
        names = ("index", "age", "label", "gender", "race")
        return cls(*(table[name].cast(pl.Int64).fill_null(-1).to_numpy(writable=True) for name in names))

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class Seat:
    """One of the processes that share a training; each machine has as many of them."""

    rank: int = 0
    """From 0; the first one writes checkpoints and tells how it goes. Those of a machine follow one another."""
    processes: int = 1
    """On all machines."""
    port: int = 0
    """Where the first one waits for the others."""
    host: str = "127.0.0.1"
    """By which the others find its machine."""
    machines: int = 1

    @property
    def here(self) -> int:
        """Processes on each machine."""
        return self.processes // self.machines


@dataclass(frozen=True)
class Job:
    """One training from a fresh network, in a folder where it can be resumed."""

    folder: Path
    """Where checkpoints go; a training that finds one there goes on from it."""
    pixels: Path
    """`.npy`, uint8 `(all, size, size, 3)`, RGB."""
    train: Examples
    validation: Examples
    """May be empty: then the last epoch is kept."""
    ranges: AgeRanges
    learn: LearnSettings
    """Every field that the training goes by; `learn.epochs` is how many it takes."""
    metric: Metric | None
    """Validation figure that the best epoch goes by; None keeps the last epoch."""
    patience: int | None = None
    """Epochs without a better figure after which it stops; None never stops early."""
    until: int | None = None
    """Epoch after which to pause, with the schedule of all; its checkpoint stays, and a later job goes on from it."""
    device: str = "auto"
    threads: int = 1
    """Threads of each process."""
    gpu: int | None = None
    """Which GPU, where the device is one; None leaves it to torch."""
    seat: Seat = Seat()
    """Which of the processes that share the training this is."""


@dataclass(frozen=True)
class EpochEvent:
    """What is known at the end of an epoch."""

    epoch: int
    """Counts from 1."""
    epochs: int
    """How many there are at most."""
    metrics: dict[str, float]
    """`train_*` and `validation_*` figures, and `train_objective`: what was minimised."""
    lr: float
    """Learning rate of the last step."""
    seconds: float
    early: bool = False
    """Whether patience has run out with it, so that no other follows."""


@dataclass(frozen=True)
class Fitted:
    """A finished training."""

    curves: list[dict[str, float]] = field(default_factory=list)
    """One row an epoch: `epoch`, `lr`, `seconds` and the metrics of its event."""
    best: int = 0
    """The epoch that was kept, from 1."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Validation figures of the kept epoch, without a prefix."""
    probabilities: NDArray[np.float32] | None = None
    """What the network of the kept epoch says of the validation rows, in the job's order, `(rows, classes)`."""
    parameters: int = 0
    """Trainable numbers in the network."""
    seconds: float = 0.0
    """Time of all epochs, those before an interruption included."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Mean of the training pixels, a channel, in [0, 1]."""
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Standard deviation of the training pixels, a channel, in [0, 1]."""
