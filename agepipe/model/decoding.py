"""From probabilities of ranges to an answer: one range, and a set of neighbouring ranges that holds the true one.

Prediction sets are conformal: a row's score is the probability that its set has gathered before it takes in the true
range; the threshold is a quantile of the scores of rows that the network was not fitted on, and sets made with it hold
the true range of new, exchangeable rows with at least the wished probability (Lu, Angelopoulos and Pomerantz,
"Improving trustworthiness of AI disease severity rating in medical imaging with ordinal conformal prediction sets",
2022). Sets grow from the answer towards the likelier neighbour, so they are contiguous by construction.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agepipe.core.errors import DataError

Decoding = Literal["likeliest", "median"]
"""How one range is answered: the most probable one, or the median of the distribution, which costs the fewest ranges
of error on average."""

LEVELS: tuple[int, ...] = tuple(range(50, 100))
"""Levels, in percent, for which a model carries thresholds."""
DEFAULT_LEVEL = 90


class Rule(NamedTuple):
    """How a model's probabilities become an answer."""

    decoding: Decoding = "likeliest"
    threshold: float | None = None
    """Up to what the set of `DEFAULT_LEVEL` gathers; None where nothing was calibrated."""


Floats = NDArray[np.float64]
Classes = NDArray[np.int64]


def decide(probabilities: NDArray[np.floating], decoding: Decoding = "likeliest") -> Classes:
    """The answered class of each row, int64 `(n,)`, from `(n, classes)`; the younger one of two that are level.

    `median` minimises the expected number of ranges between answer and truth, for the median minimises the expected
    absolute error (Gneiting, "Making and evaluating point forecasts", 2011, section 3.3).
    """
    if decoding == "likeliest":
        return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)
    sums = np.cumsum(probabilities, axis=1, dtype=np.float64)
    # half of the sum, not 0.5: what a network gives sums to one only up to rounding
    return np.asarray((sums < sums[:, -1:] / 2).sum(axis=1), dtype=np.int64)


def scores(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], decoding: Decoding = "likeliest"
) -> Floats:
    """The probability that each row's set has gathered before it takes in the true class, float64 `(n,)`.

    Args:
        probabilities: `(n, classes)`.
        labels: true classes, `(n,)`.
        decoding: how one class is answered; each set begins with it.
    """
    found = np.full(len(labels), np.nan)
    for low, high, before in _growing(probabilities, decoding):
        inside = np.isnan(found) & (low <= labels) & (labels <= high)
        found[inside] = before[inside]
    return found


def thresholds(scores_: Floats, levels: tuple[int, ...] = LEVELS) -> dict[int, float]:
    """For each level, in percent, up to what a set goes on gathering: the conformal quantile of the scores.

    That is the `ceil((n + 1) * level)`-th smallest score; 1 where there are too few rows for the level, so that a set
    then holds all ranges.

    Raises:
        DataError: there are no scores.
    """
    if len(scores_) == 0:
        raise DataError("prediction sets: there are no rows to calibrate on; keep some apart (final.validation).")
    ordered = np.sort(scores_)
    ranks = {level: -(-(len(ordered) + 1) * level // 100) for level in levels}
    return {level: float(ordered[rank - 1]) if rank <= len(ordered) else 1.0 for level, rank in ranks.items()}


def sets(
    probabilities: NDArray[np.floating], threshold: float, decoding: Decoding = "likeliest"
) -> tuple[Classes, Classes]:
    """First and last class of each row's set, two int64 `(n,)`; it grows while it has not gathered more."""
    first = last = np.zeros(len(probabilities), dtype=np.int64)
    for low, high, before in _growing(probabilities, decoding):
        grown = (before <= threshold) | (threshold >= 1)
        first, last = np.where(grown, low, first), np.where(grown, high, last)
    return first, last


def _growing(probabilities: NDArray[np.floating], decoding: Decoding) -> Iterator[tuple[Classes, Classes, Floats]]:
    """Each row's nested sets, one class larger at a time: first and last class, and what the one before gathered."""
    shares = np.asarray(probabilities, dtype=np.float64)
    count, classes = shares.shape
    # a class beyond either end is less likely than any, so that it is never taken in
    padded = np.pad(shares, ((0, 0), (1, 1)), constant_values=-1.0)
    rows = np.arange(count)
    low = high = decide(shares, decoding)
    mass = shares[rows, low]
    yield low, high, np.zeros(count)
    for _ in range(classes - 1):
        before = mass
        below, above = padded[rows, low], padded[rows, high + 2]
        younger = below >= above
        low, high = low - younger, high + ~younger
        mass = mass + np.where(younger, below, above)
        yield low, high, before
