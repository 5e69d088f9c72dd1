"""From probabilities of ranges to an answer: one range, and a set of neighbouring ranges that holds the true one.

A prediction set grows from the answer towards its more probable neighbour until it has gathered the model's threshold,
so it is contiguous by construction. `agepipe.model.calibration` computes the thresholds.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Decoding = Literal["likeliest", "median"]
"""How one range is answered: the most probable one, or the median of the distribution, which costs the fewest ranges
of error on average."""

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


def sets(
    probabilities: NDArray[np.floating], threshold: float, decoding: Decoding = "likeliest"
) -> tuple[Classes, Classes]:
    """First and last class of each row's set, two int64 `(n,)`; it grows while it has not gathered more."""
    first = last = np.zeros(len(probabilities), dtype=np.int64)
    for low, high, before in nested_sets(probabilities, decoding):
        grown = (before <= threshold) | (threshold >= 1)
        first, last = np.where(grown, low, first), np.where(grown, high, last)
    return first, last


def nested_sets(probabilities: NDArray[np.floating], decoding: Decoding) -> Iterator[tuple[Classes, Classes, Floats]]:
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
