"""Coverage and size of a model's prediction sets."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agepipe.evaluation.metrics import Predictions
from agepipe.model.bundle import Card
from agepipe.model.decoding import sets


class Sets(NamedTuple):
    """The sets of `n` rows at one level; each is a run of neighbouring ranges."""

    level: int
    """Nominal coverage in percent: the share of rows whose set should contain the true range."""
    low: NDArray[np.int64]
    """First class, `(n,)`."""
    high: NDArray[np.int64]
    """Last class, `(n,)`."""

    @property
    def size(self) -> NDArray[np.int64]:
        """Ranges in each set, `(n,)`."""
        return self.high - self.low + 1

    def measures(self, labels: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """Values to average, each `(n,)`: whether the set contains the true class, its size, whether that is 1."""
        found = {
            "coverage": (self.low <= labels) & (labels <= self.high), "set_size": self.size, "single": self.size == 1,
        }  # fmt: skip
        return {name: np.asarray(values, dtype=np.float64) for name, values in found.items()}


def sets_of(card: Card, predictions: Predictions, level: int) -> Sets | None:
    """The sets of evaluated rows; None if the model has no threshold for the level."""
    if level not in card.thresholds:
        return None
    return Sets(level, *sets(predictions.probabilities, card.thresholds[level], predictions.decoding))


def no_sets(card: Card, level: int) -> str:
    """Why there are no sets, in one sentence."""
    if not card.thresholds:
        return (
            "The model has no thresholds for prediction sets, so it answers one range however uncertain it is. A model "
            "that is trained with validation data (final.validation) has them."
        )
    have = ", ".join(map(str, sorted(card.thresholds)))
    return f"The model has no threshold for prediction sets at {level} %. It has thresholds for these levels: {have} %."
