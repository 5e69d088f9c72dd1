"""The arguments and the result of a training: plain values that are sent between processes, without torch."""

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
IMAGENET: tuple[Channels, Channels] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet, with which all of torchvision's weights were trained."""
Precision = Literal["float32", "bfloat16"]
"""Precision of the convolutions of a training; weights, loss, optimizer and predictions are always float32."""
Order = Literal["age", "text"]
"""Order of an imported network's outputs; see `agepipe.training.import_weights.read`."""


_NUMBERS = TypeAdapter(list[Annotated[int, Field(ge=-(2**63), lt=2**63)]])


def _column(found: object) -> NDArray[np.int64]:
    return found if isinstance(found, np.ndarray) else np.array(_NUMBERS.validate_python(found), np.int64)


Column = Annotated[NDArray[np.int64], PlainValidator(_column), PlainSerializer(lambda column: column.tolist())]
"""Integers, int64 `(n,)`; a list in JSON."""


@dataclass(frozen=True)
class Examples:
    """Labelled rows and their positions in the pixel store."""

    index: Column
    """Positions in the pixel store, `(n,)`."""
    ages: Column
    """Ages in years, `(n,)`."""
    labels: Column
    """Classes, `(n,)`."""
    genders: Column
    """0 male, 1 female, -1 unknown, `(n,)`."""
    races: Column
    """UTKFace's numbers 0 to 4, -1 unknown, `(n,)`."""

    @classmethod
    def of(cls, table: pl.DataFrame) -> Self:
        """The rows of a labelled table, in the same order."""
        names = ("index", "age", "label", "gender", "race")
        return cls(*(table[name].cast(pl.Int64).fill_null(-1).to_numpy(writable=True) for name in names))

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class Seat:
    """The position of a process in a distributed training."""

    rank: int = 0
    """From 0; the first process reads and writes checkpoints and sends events."""
    processes: int = 1
    """Number of processes on all machines."""
    port: int = 0
    """Port of the store in which the processes find each other."""
    host: str = "127.0.0.1"
    """Host of that store, as all processes reach it."""
    prefix: str = ""
    """Prefix of the training's keys in a store that is there already; if empty, the first process hosts one."""


@dataclass(frozen=True)
class Job:
    """A training of a new network, in a folder from which it can be resumed."""

    folder: Path
    """Folder of the checkpoints; a checkpoint there is resumed."""
    pixels: Path
    """The pixel store: `.npy`, uint8 RGB `(all, size, size, 3)`."""
    train: Examples
    validation: Examples
    """May be empty; then the last epoch is kept."""
    ranges: AgeRanges
    learn: LearnSettings
    """All settings of the training; `learn.epochs` is its number of epochs."""
    metric: Metric | None
    """Validation figure that decides which epoch is the best; None saves the last epoch."""
    patience: int | None = None
    """Epochs without improvement after which the training stops early; None never stops early."""
    until: int | None = None
    """Epoch after which to pause; the schedule is that of all epochs, and a later job resumes from the checkpoint."""
    keep_last: bool = True
    """Whether the last epoch is saved too; a training of which only the result is needed repeats it after a kill."""
    device: str = "auto"
    threads: int = 1
    """Threads of each process."""
    gpu: int | None = None
    """Index of the GPU; None takes torch's current one."""
    seat: Seat = Seat()
    """Position of this process among those of the training."""


@dataclass(frozen=True)
class EpochEvent:
    """Progress of a training at the end of an epoch."""

    epoch: int
    """Counts from 1."""
    epochs: int
    """Number of epochs without early stopping."""
    metrics: dict[str, float]
    """`train_*` and `validation_*` figures, and `train_objective`, the mean loss."""
    lr: float
    """Largest learning rate of the parameter groups in the last step."""
    seconds: float
    early: bool = False
    """Whether the training stops early with this epoch."""


@dataclass(frozen=True)
class Fitted:
    """The result of a training."""

    curves: list[dict[str, float]] = field(default_factory=list)
    """A row for each epoch: `epoch`, `lr`, `seconds` and the metrics of its event."""
    best: int = 0
    """Number of the best epoch, from 1, whose weights were saved."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Validation figures of the best epoch, without a prefix."""
    probabilities: NDArray[np.float32] | None = None
    """Predictions for the validation rows in the best epoch, in the job's order, `(rows, classes)`."""
    precision: Precision = "float32"
    """Precision of the convolutions."""
    parameters: int = 0
    """Number of parameters of the network."""
    seconds: float = 0.0
    """Duration of all epochs, including those before an interruption."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Mean of the training pixels in each channel, in [0, 1]."""
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Standard deviation of the training pixels in each channel, in [0, 1]."""
