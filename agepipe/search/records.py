"""Records of the search: a fold, and one training on all others."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from agepipe.core.record import Made


class Fold(BaseModel):
    """Which part of the development rows a trial validates on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int
    count: int
    seed: int


class Trial(Made):
    """One setting trained from a fresh network on all folds but one, and judged on that one."""

    settings: dict[str, Any]
    """The values of the searched fields, by dotted name inside `learn`."""
    setting: int
    """Position of the setting in the grid."""
    fold: Fold
    metrics: dict[str, float]
    """Validation figures of the best epoch."""
    seconds: float
    epochs: int
    parameters: int = 0
    """Trainable numbers in the network; a tie in the search goes to the smaller."""
    planned: int = 0
    """Epochs that its schedule was laid out for."""

    @property
    def whole(self) -> bool:
        """Whether it ran to the end; otherwise its figures are those of its first `epochs`."""
        return self.epochs >= self.planned
