"""Rows that a person should check: the most confident wrong predictions, and labels that may be wrong.

A prediction that contradicts a label is evidence against the label only if the model's own errors do not explain it. So
each label gets a p-value: the total probability, by the model, of all ranges that are at most as probable as the given
one. A model that is often wrong, and calibrated, gives most labels a large p-value. The p-values of an overconfident
model are too small. They are raised to the power that makes their quantiles those of a calibrated model, at quantiles
that a few wrong labels hardly change. The smallest are selected by the procedure of Benjamini and Hochberg
("Controlling the false discovery rate", 1995). A label is not listed if the most probable range is a neighbour of the
given one, or is no further from the given age than the model's mean error. The method needs predictions of rows that
the network was not fitted on, as evaluated rows are.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.evaluation.metrics import Predictions
from agepipe.model.ages import AgeRanges

MISTAKES = 24
"""Wrong predictions that the report shows as pictures."""
DOUBTS = 20
"""Labels worth checking that the report lists."""
FALSE = 0.05
"""Largest expected share of right labels among the listed ones, for a calibrated model."""
QUANTILES = (0.5, 0.8, 0.9)
"""Quantiles for the correction of p-values; if up to a tenth of the labels are wrong, they hardly change."""

Floats = NDArray[np.float64]


def confident_mistakes(predictions: Predictions, count: int = MISTAKES) -> NDArray[np.int64]:
    """Indices of the most confident wrong predictions, int64 `(count at most,)`, the most confident first."""
    wrong = np.flatnonzero(~predictions.right)
    return wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:count]


def label_errors(table: pl.DataFrame, predictions: Predictions, ranges: AgeRanges) -> pl.DataFrame:
    """Rows whose label is worth checking, the least probable label first; the module's docstring has the rule.

    Args:
        table: evaluated rows, with `index`, `path`, `digest` and `age`.
        predictions: their labels and predictions.
        ranges: the model's ranges.

    Returns:
        `index`, `path`, `digest`, `age given`, `range given`, `range suggested` (as words, because spreadsheets read
        `3-5` as a date), `years apart`, `age predicted`, `probability given`, `probability suggested`.
    """
    suggested = predictions.probabilities.argmax(axis=1)
    apart = _apart(predictions.ages, suggested, ranges)
    given, other = (
        predictions.probabilities[np.arange(len(suggested)), one] for one in (predictions.labels, suggested)
    )
    far = (np.abs(suggested - predictions.labels) > 1) & (apart > predictions.errors.mean())
    listed = far & smallest(corrected(p_values(predictions.labels, predictions.probabilities)))
    places, words = np.flatnonzero(listed), np.array(ranges.words)
    found = table[places].select("index", "path", "digest", pl.col("age").alias("age given"))
    return found.with_columns(
        pl.Series("range given", words[predictions.labels[places]], dtype=pl.String),
        pl.Series("range suggested", words[suggested[places]], dtype=pl.String),
        pl.Series("years apart", apart[places]),
        pl.Series("age predicted", ranges.within(suggested, predictions.years)[places]).round(1),
        pl.Series("probability given", given[places]).round(4),
        pl.Series("probability suggested", other[places]).round(4),
    )[np.lexsort((-other[places], given[places]))]


def p_values(labels: NDArray[np.int64], probabilities: Floats) -> Floats:
    """The total probability of the classes that are at most as probable as the given one, `(n,)`.

    Args:
        labels: given classes, `(n,)`.
        probabilities: of rows that the network was not fitted on, `(n, classes)`.
    """
    own = probabilities[np.arange(len(labels)), labels]
    return np.asarray(np.where(probabilities <= own[:, None], probabilities, 0.0).sum(axis=1))


def corrected(p: Floats) -> Floats:
    """Correct the p-values of an overconfident model to those of a calibrated one; others stay unchanged.

    The p-values of a calibrated model are uniform or larger, so the quantiles of their negative logarithms are at most
    those of the exponential distribution. If some are larger, all logarithms are divided by the largest ratio.
    """
    surprise = -np.log(np.clip(p, np.finfo(np.float64).tiny, 1.0))
    ratios = np.quantile(surprise, QUANTILES) / -np.log1p(-np.array(QUANTILES))
    return np.asarray(np.exp(-surprise / max(1.0, ratios.max())))


def smallest(p: Floats) -> NDArray[np.bool_]:
    """Which p-values are discoveries at the false discovery rate `FALSE`, `(n,)`."""
    from scipy.stats import false_discovery_control  # takes long to import

    return np.asarray(false_discovery_control(p) <= FALSE)


def _apart(ages: NDArray[np.float64], classes: NDArray[np.int64], ranges: AgeRanges) -> NDArray[np.int64]:
    """Years between each age and the nearest age of the range of its class, int64 `(n,)`."""
    highs = np.array([np.inf if one.high is None else one.high for one in ranges.ranges])
    outside = np.maximum(ranges.lows[classes] - ages, ages - highs[classes])
    return np.asarray(np.maximum(outside, 0), dtype=np.int64)
