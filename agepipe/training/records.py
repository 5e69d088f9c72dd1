"""The record of a search's result, which the final training starts from."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from agepipe.core.record import Record


class Stopped(BaseModel):
    """A setting that the search stopped early; it is not compared with finished ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: dict[str, Any]
    epochs: int
    """Epochs after which it was stopped."""
    planned: int
    """Epochs without the early stop."""
    mean: float
    """Its score after `epochs`, as the mean over folds."""


class Choice(Record):
    """The best setting of a search, with the mean and standard deviation of its score over folds."""

    settings: dict[str, Any]
    metric: str
    mean: float
    deviation: float
    trials: int
    runs: tuple[str, ...] = ()
    """Ids of the MLflow runs of all trials."""
    stopped: tuple[Stopped, ...] = ()
    """Settings that were stopped early; the best was chosen among the others."""
    outcomes: tuple[Path, ...] = ()
    """Out-of-fold predictions of the best setting, a file for each fold; see `agepipe.search.trial`."""

    def files(self) -> tuple[Path, ...]:
        """The out-of-fold predictions."""
        return self.outcomes
