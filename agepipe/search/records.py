"""Records of the search: the trials that a strategy requests, and the result of one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from agepipe.config.stages import SearchSettings
from agepipe.core.record import Made

TrialId = tuple[int, int]
"""Position of a trial's setting in the search, and the index of its fold."""


class Fold(BaseModel):
    """One part of the cross-validation of the development rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int
    count: int
    seed: int


class TrialSpec(NamedTuple):
    """A trial to train: one setting, on all folds but one."""

    setting: int
    """Position of the setting in the search."""
    settings: dict[str, Any]
    """Values of the searched fields, by dotted name inside `learn`."""
    fold: Fold
    """The fold that the trial is evaluated on."""

    @property
    def id(self) -> TrialId:
        """Setting and fold."""
        return self.setting, self.fold.index


class Trial(Made):
    """The result of one setting, trained from a fresh network on all folds but one and evaluated on that one."""

    settings: dict[str, Any]
    """Values of the searched fields, by dotted name inside `learn`."""
    setting: int
    """Position of the setting in the search."""
    fold: Fold
    metrics: dict[str, float]
    """Validation figures of the best epoch."""
    seconds: float
    epochs: int
    """Epochs that were trained."""
    parameters: int = 0
    """Number of trainable parameters of the network; of two equally good settings the smaller network is chosen."""
    planned: int = 0
    """Epochs of the complete training, over which the learning rate's schedule runs."""

    @property
    def id(self) -> TrialId:
        """Setting and fold."""
        return self.setting, self.fold.index

    @property
    def finished(self) -> bool:
        """Whether all epochs were trained; otherwise the trial is paused or was stopped early."""
        return self.epochs >= self.planned


@dataclass(frozen=True)
class Request:
    """What a strategy wants trained next."""

    specs: Sequence[TrialSpec]
    until: int | None = None
    """Epoch after which the trials pause; None trains them to the end."""
    paused: Sequence[Trial] = ()
    """Results of the same trials as they paused earlier; each continues from its checkpoint."""
    stop: Sequence[Trial] = ()
    """Paused trials that will not continue."""


def on_all_folds(setting: int, settings: dict[str, Any], search: SearchSettings) -> list[TrialSpec]:
    """The trials of one setting, one on each fold."""
    folds = [Fold(index=index, count=search.folds, seed=search.seed) for index in range(search.folds)]
    return [TrialSpec(setting, settings, fold) for fold in folds]
