"""Compare a model with constant guesses: each figure with that of the best constant guess for it.

The guesses are derived from the evaluated rows themselves, so no constant does better on them. Model and guess are
evaluated on the same draws of the groups, and the intervals of all figures are simultaneous
(`agepipe.evaluation.comparison`).
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from agepipe.evaluation.comparison import Difference, simultaneous
from agepipe.evaluation.metrics import Predictions

COMPARED = ("accuracy", "within_one", "macro_recall", "mae")
"""The figures in which a model is compared with a constant guess."""
DECISIVE = ("accuracy", "macro_recall", "mae")
"""The figures that decide whether it is better; with two or three ranges a guess may be within one range of all."""

Floats = NDArray[np.float64]


def guesses(predictions: Predictions) -> dict[str, Floats]:
    """Score of the best constant guess on each row, `(n,)`, for the figures that are means over rows.

    The guesses are the most common range for `accuracy`, the range with most rows in or beside it for `within_one`,
    and the median age for `mae`. Any range has a `macro_recall` of one divided by the number of ranges.
    """
    classes = predictions.probabilities.shape[1]
    count = np.bincount(predictions.labels, minlength=classes)
    near = np.convolve(count, np.ones(3), mode="same") if classes > 2 else np.full(classes, count.sum())
    found = {
        "accuracy": predictions.labels == count.argmax(), "within_one": np.abs(predictions.labels - near.argmax()) <= 1,
        "mae": np.abs(predictions.ages - np.median(predictions.ages)),
    }  # fmt: skip
    return {name: np.asarray(values, dtype=np.float64) for name, values in found.items()}


def against_constants(
    predictions: Predictions, draws: Mapping[str, Floats], means: Mapping[str, Floats], figures: Mapping[str, float],
    confidence: float,
) -> dict[str, Difference]:  # fmt: skip
    """The model minus the best constant guess, for each of `COMPARED`.

    Args:
        predictions: labels and predictions.
        draws: each figure of the model on each draw of the groups, `(draws,)`.
        means: the mean of each of `guesses` on the same draws, `(draws,)`.
        figures: the model's figures on all rows.
        confidence: joint coverage of the intervals.
    """
    constant = 1 / predictions.probabilities.shape[1]
    whole = {name: float(values.mean()) for name, values in guesses(predictions).items()} | {"macro_recall": constant}
    apart = np.stack([draws[name] - means.get(name, constant) for name in COMPARED], axis=1)
    values = [(figures[name], whole[name]) for name in COMPARED]
    return dict(zip(COMPARED, simultaneous(COMPARED, values, apart, confidence), strict=True))
