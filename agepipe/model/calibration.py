"""Calibration of probabilities: reliability, expected calibration error, temperature, and conformal thresholds.

The temperature is fitted on rows that the network was not fitted on and that are not test rows. The exported model
applies it to the probabilities of the ranges: `p ** (1 / T)`, scaled to sum to one, which is the softmax of logits
divided by `T` (Guo and others, "On calibration of modern neural networks", 2017).

Prediction sets (`agepipe.model.decoding`) are conformal. The score of a row is the probability mass of its set before
the true range is added. The threshold is a quantile of the scores of rows that the network was not fitted on. Sets made
with it contain the true range of new, exchangeable rows with at least the requested probability (Lu,
Angelopoulos and Pomerantz, "Improving trustworthiness of AI disease severity rating in medical imaging with ordinal
conformal prediction sets", 2022).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agepipe.core.errors import DataError
from agepipe.model.decoding import Decoding, nested_sets

TINY = 1e-12
"""Lower limit of probabilities in logarithms, so that a confident mistake costs at most 27.6 nats."""
BINS = 15
"""Number of bins of equal width, as in Guo and others."""
LEVELS: tuple[int, ...] = tuple(range(50, 100))
"""Levels, in percent, for which a model carries thresholds."""
COLDEST, HOTTEST = 0.05, 20.0
"""Bounds of the search for a temperature."""

Floats = NDArray[np.float64]


class Reliability(NamedTuple):
    """Confidence and accuracy, one entry a bin that has rows."""

    confidence: Floats
    """Mean probability of the predictions in the bin."""
    accuracy: Floats
    """Share of correct predictions in the bin."""
    rows: NDArray[np.int64]
    """Number of predictions in the bin."""

    @property
    def error(self) -> float:
        """Expected calibration error: the mean absolute difference of confidence and accuracy, weighted by rows.

        It is biased upward: even a perfectly calibrated model has some error by chance, which is larger if the bins
        have few rows.
        """
        return float(np.average(np.abs(self.confidence - self.accuracy), weights=self.rows))


def reliability(confidence: Floats, right: NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """Group predictions by their confidence.

    Args:
        confidence: probability of each predicted class, `(n,)`, in [0, 1].
        right: whether it is the true class, `(n,)`.
        bins: number of bins of equal width; empty bins are left out.

    Raises:
        DataError: there are no rows.
    """
    if len(confidence) == 0:
        raise DataError("calibration: there are no rows to evaluate; give at least one.")
    place = bins_of(confidence, bins)
    count = np.bincount(place, minlength=bins)
    used = count > 0
    sure, true = (np.bincount(place, weights=values, minlength=bins)[used] for values in (confidence, right))
    return Reliability(sure / count[used], true / count[used], count[used])


def bins_of(confidence: Floats, bins: int = BINS) -> NDArray[np.int64]:
    """The bin of each confidence, int64 `(n,)`; the last bin includes 1."""
    return np.minimum((confidence * bins).astype(np.int64), bins - 1)


def by_chance(confidence: Floats) -> float:
    """The mean calibration error of a perfectly calibrated model with these confidences, which is due to chance alone.

    Its correct predictions are independent. The difference between their number in a bin and the sum of confidences is
    about normal with variance `sum p (1 - p)`, and its mean absolute value is `sqrt(2 / pi)` standard deviations.
    """
    variance = np.bincount(bins_of(confidence), weights=confidence * (1 - confidence), minlength=BINS)
    return float(np.sqrt(2 / np.pi * np.maximum(variance, 0)).sum() / len(confidence))


def tempered(probabilities: NDArray[np.floating], temperature: float) -> Floats:
    """Probabilities `(n, classes)` at another temperature: above 1 less confident, below 1 more confident."""
    logits = np.log(np.clip(np.asarray(probabilities, dtype=np.float64), TINY, 1.0)) / temperature
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def fit_temperature(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """The temperature that maximises the likelihood of the true classes.

    Args:
        probabilities: of rows that the network was not fitted on, at temperature 1, `(n, classes)`.
        labels: their true classes, `(n,)`.

    Raises:
        DataError: there are no rows.
    """
    from scipy.optimize import minimize_scalar

    if len(labels) == 0:
        raise DataError("calibration: there are no rows to fit a temperature on; reserve some (final.validation).")
    rows = np.arange(len(labels))

    def loss(power: float) -> float:
        shares = tempered(probabilities, float(np.exp(power)))
        return float(-np.log(np.clip(shares[rows, labels], TINY, 1.0)).mean())

    found = minimize_scalar(loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded")
    return float(np.exp(found.x))


def scores(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], decoding: Decoding = "likeliest"
) -> Floats:
    """Conformal scores: the probability mass of each row's set before the true class is added, float64 `(n,)`.

    Args:
        probabilities: `(n, classes)`.
        labels: true classes, `(n,)`.
        decoding: how the predicted class is chosen, with which each set begins.
    """
    found = np.full(len(labels), np.nan)
    for low, high, before in nested_sets(probabilities, decoding):
        inside = np.isnan(found) & (low <= labels) & (labels <= high)
        found[inside] = before[inside]
    return found


def thresholds(scores_: Floats) -> dict[int, float]:
    """The conformal threshold of each of `LEVELS`, in percent: the `ceil((n + 1) * level)`-th smallest score.

    The threshold is 1 if there are too few rows for the level, so that a set then contains all ranges.

    Raises:
        DataError: there are no scores.
    """
    if len(scores_) == 0:
        raise DataError("prediction sets: there are no rows to calibrate on; reserve some (final.validation).")
    ordered = np.sort(scores_)
    ranks = {level: -(-(len(ordered) + 1) * level // 100) for level in LEVELS}
    return {level: float(ordered[rank - 1]) if rank <= len(ordered) else 1.0 for level, rank in ranks.items()}
