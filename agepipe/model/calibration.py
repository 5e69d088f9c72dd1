"""Whether probabilities mean what they say: reliability, expected calibration error, and the temperature that mends it.

The temperature is fitted on rows that the network was not fitted on and that are no test rows; it then is inside the
exported model, applied to the probabilities of the ranges: `p ** (1 / T)`, scaled to sum to one, which is the softmax
of logits divided by `T` (Guo and others, "On calibration of modern neural networks", 2017).

Prediction sets (`agepipe.model.decoding`) are conformal. The score of a row is the probability that its set has
gathered before it takes in the true range. The threshold is a quantile of the scores of rows that the network was not
fitted on. Sets made with it hold the true range of new, exchangeable rows with at least the requested probability (Lu,
Angelopoulos and Pomerantz, "Improving trustworthiness of AI disease severity rating in medical imaging with ordinal
conformal prediction sets", 2022).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agepipe.core.errors import DataError
from agepipe.model.decoding import Decoding, nested_sets

TINY = 1e-12
"""The smallest probability whose logarithm enters a loss, so that one sure mistake costs 27.6 nats, not infinity."""
BINS = 15
"""Bins of equal width, as Guo and others take."""
LEVELS: tuple[int, ...] = tuple(range(50, 100))
"""Levels, in percent, for which a model carries thresholds."""
COLDEST, HOTTEST = 0.05, 20.0
"""Between these a temperature is sought."""

Floats = NDArray[np.float64]


class Reliability(NamedTuple):
    """Confidence against what came true, one entry a bin that has rows."""

    confidence: Floats
    """Mean probability of the answers in the bin."""
    accuracy: Floats
    """Share of right answers in the bin."""
    rows: NDArray[np.int64]
    """Answers in the bin."""

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of the two, weighted by rows.

        It is biased upward: even of a perfectly calibrated model some distance is left by chance, the more the fewer
        rows there are in a bin.
        """
        return float(np.average(np.abs(self.confidence - self.accuracy), weights=self.rows))


def reliability(confidence: Floats, right: NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """Group answers by their confidence.

    Args:
        confidence: probability of each answer, `(n,)`, in [0, 1].
        right: whether it is the true class, `(n,)`.
        bins: of equal width; empty ones are left out.

    Raises:
        DataError: there are no rows.
    """
    if len(confidence) == 0:
        raise DataError("calibration: there are no rows to judge; give at least one.")
    place = bins_of(confidence, bins)
    count = np.bincount(place, minlength=bins)
    used = count > 0
    sure, true = (np.bincount(place, weights=values, minlength=bins)[used] for values in (confidence, right))
    return Reliability(sure / count[used], true / count[used], count[used])


def bins_of(confidence: Floats, bins: int = BINS) -> NDArray[np.int64]:
    """The bin of each confidence, int64 `(n,)`; the last one holds 1 too."""
    return np.minimum((confidence * bins).astype(np.int64), bins - 1)


def by_chance(confidence: Floats, bins: int = BINS) -> float:
    """The calibration error that a perfectly calibrated model with these confidences shows on average, by chance alone.

    Right answers are independent then, so that a bin's surplus is about normal with variance `sum p (1 - p)`, and the
    mean of its absolute value `sqrt(2 / pi)` standard deviations.
    """
    variance = np.bincount(bins_of(confidence, bins), weights=confidence * (1 - confidence), minlength=bins)
    return float(np.sqrt(2 / np.pi * np.maximum(variance, 0)).sum() / len(confidence))


def tempered(probabilities: NDArray[np.floating], temperature: float) -> Floats:
    """Probabilities `(n, classes)` at another temperature: above 1 less sure, below 1 surer."""
    logits = np.log(np.clip(np.asarray(probabilities, dtype=np.float64), TINY, 1.0)) / temperature
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def fit_temperature(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """The temperature at which the true classes are likeliest.

    Args:
        probabilities: of rows that the network was not fitted on, at temperature 1, `(n, classes)`.
        labels: their true classes, `(n,)`.

    Raises:
        DataError: there are no rows.
    """
    from scipy.optimize import minimize_scalar

    if len(labels) == 0:
        raise DataError("calibration: there are no rows to fit a temperature on; keep some apart (final.validation).")
    rows = np.arange(len(labels))

    def loss(power: float) -> float:
        shares = tempered(probabilities, float(np.exp(power)))
        return float(-np.log(np.clip(shares[rows, labels], TINY, 1.0)).mean())

    found = minimize_scalar(loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded")
    return float(np.exp(found.x))


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
    for low, high, before in nested_sets(probabilities, decoding):
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
