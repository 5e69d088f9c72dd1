"""The record of a search's choice, which the final training begins with."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from agepipe.core.record import Record


class Stopped(BaseModel):
    """A setting that the search stopped early; never compared with one that ran to the end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: dict[str, Any]
    epochs: int
    """Epochs after which it was stopped."""
    planned: int
    """Epochs that it would have had."""
    mean: float
    """Its score after those epochs, as the mean over folds."""


class Choice(Record):
    """The setting that won the search, with the mean and standard deviation of its score over folds."""

    settings: dict[str, Any]
    metric: str
    mean: float
    deviation: float
    trials: int
    runs: tuple[str, ...] = ()
    """The MLflow runs of all trials."""
    stopped: tuple[Stopped, ...] = ()
    """What was stopped early; the choice was made among the others."""
    outcomes: tuple[Path, ...] = ()
    """What the networks of the chosen setting said of the fold that each had not seen; see `agepipe.search.trial`."""

    def files(self) -> tuple[Path, ...]:
        """The out-of-fold predictions."""
        return self.outcomes
