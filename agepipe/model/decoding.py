"""Predictions from the probabilities of ranges: one range, and a set of neighbouring ranges.

A prediction set starts with the predicted range. It is extended by the more probable of its two neighbours until its
probability mass exceeds the model's threshold, so it is contiguous. `agepipe.model.calibration` computes thresholds.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Decoding = Literal["likeliest", "median"]
"""How a range is chosen: the most probable one (`likeliest`), or the median of the distribution, which minimises the
expected error in ranges."""

DEFAULT_LEVEL = 90


class Rule(NamedTuple):
    """How a range and a prediction set are chosen from a model's probabilities."""

    decoding: Decoding = "likeliest"
    threshold: float | None = None
    """Probability mass at which the set of `DEFAULT_LEVEL` stops growing; None if nothing was calibrated."""


Floats = NDArray[np.float64]
Classes = NDArray[np.int64]


def decide(probabilities: NDArray[np.floating], decoding: Decoding = "likeliest") -> Classes:
    """The predicted class of each row, int64 `(n,)`, from `(n, classes)`; the younger of two equally probable ones.

    `median` minimises the expected number of ranges between prediction and truth, because the median minimises the
    expected absolute error (Gneiting, "Making and evaluating point forecasts", 2011, section 3.3).
    """
    if decoding == "likeliest":
        return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)
    sums = np.cumsum(probabilities, axis=1, dtype=np.float64)
    # half of the sum, not 0.5: the probabilities of a network sum to one only up to rounding
    return np.asarray((sums < sums[:, -1:] / 2).sum(axis=1), dtype=np.int64)


def sets(
    probabilities: NDArray[np.floating], threshold: float, decoding: Decoding = "likeliest"
) -> tuple[Classes, Classes]:
    """First and last class of each row's set, two int64 `(n,)`; a set grows while its mass is at most the threshold."""
    first = last = np.zeros(len(probabilities), dtype=np.int64)
    for low, high, before in nested_sets(probabilities, decoding):
        grown = (before <= threshold) | (threshold >= 1)
        first, last = np.where(grown, low, first), np.where(grown, high, last)
    return first, last


def nested_sets(probabilities: NDArray[np.floating], decoding: Decoding) -> Iterator[tuple[Classes, Classes, Floats]]:
    """Nested sets of each row, each one class larger: first and last class, and the mass of the set before."""
    shares = np.asarray(probabilities, dtype=np.float64)
    count, classes = shares.shape
    # a class beyond either end has a negative probability, so that it is never added
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
