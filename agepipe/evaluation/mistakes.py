"""Rows worth a person's look: the most confident wrong answers, and labels that may be wrong themselves.

A model that contradicts a label is evidence against the label only where the model's own errors do not explain it. So
each label gets a p-value: the probability, by the model, of a range that is at most as probable as the given one. A
model that is often wrong and knows it gives most labels a large one. The p-values of a model that is too confident are
too small; they are raised to the power that brings their quantiles to those of a calibrated model, taken where a few
wrong labels cannot move them. Of these p-values the smallest are listed, by the procedure of Benjamini and Hochberg
("Controlling the false discovery rate", 1995), unless the most probable range is a neighbour of the given one or is no
further from the given age than the model errs on average. All this needs answers about rows that the network was not
fitted on, which evaluated rows are.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.evaluation.metrics import Judged
from agepipe.model.ages import AgeRanges

MISTAKES = 24
"""Wrong answers that the report shows as pictures."""
DOUBTS = 20
"""Labels worth checking that the report lists."""
FALSE = 0.05
"""Share of the listed labels that may be right, of a model whose p-values are as they should be."""
QUANTILES = (0.5, 0.8, 0.9)
"""By these the p-values are corrected; up to a tenth of the labels may be wrong without moving them much."""

Floats = NDArray[np.float64]


def surest_mistakes(judged: Judged, count: int = MISTAKES) -> NDArray[np.int64]:
    """Places of the most confident wrong answers, int64 `(count at most,)`, the most confident first."""
    wrong = np.flatnonzero(~judged.right)
    return wrong[np.argsort(-judged.confidence[wrong], kind="stable")][:count]


def label_errors(table: pl.DataFrame, judged: Judged, ranges: AgeRanges) -> pl.DataFrame:
    """Rows whose label is worth checking, the least probable label first; for what is listed see the module.

    Args:
        table: evaluated rows, with `index`, `path`, `digest` and `age`.
        judged: what was predicted for them.
        ranges: the model's own.

    Returns:
        `index`, `path`, `digest`, `age given`, `range given`, `range suggested` (in words that no spreadsheet takes for
        a date), `years apart`, `age predicted`, `probability given`, `probability suggested`.
    """
    suggested = judged.probabilities.argmax(axis=1)
    apart = _apart(judged.ages, suggested, ranges)
    given, other = (judged.probabilities[np.arange(len(suggested)), one] for one in (judged.labels, suggested))
    far = (np.abs(suggested - judged.labels) > 1) & (apart > judged.errors.mean())
    listed = far & smallest(corrected(p_values(judged.labels, judged.probabilities)))
    places, words = np.flatnonzero(listed), np.array(ranges.words)
    found = table[places].select("index", "path", "digest", pl.col("age").alias("age given"))
    return found.with_columns(
        pl.Series("range given", words[judged.labels[places]], dtype=pl.String),
        pl.Series("range suggested", words[suggested[places]], dtype=pl.String),
        pl.Series("years apart", apart[places]),
        pl.Series("age predicted", ranges.within(suggested, judged.years)[places]).round(1),
        pl.Series("probability given", given[places]).round(4),
        pl.Series("probability suggested", other[places]).round(4),
    )[np.lexsort((-other[places], given[places]))]


def p_values(labels: NDArray[np.int64], probabilities: Floats) -> Floats:
    """The probability of a class that is at most as probable as the given one, `(n,)`.

    Args:
        labels: given classes, `(n,)`.
        probabilities: of rows that the network was not fitted on, `(n, classes)`.
    """
    own = probabilities[np.arange(len(labels)), labels]
    return np.asarray(np.where(probabilities <= own[:, None], probabilities, 0.0).sum(axis=1))


def corrected(p: Floats) -> Floats:
    """P-values of a model that is too confident, as a calibrated one would give them; those of others stay.

    Those of a calibrated model are uniform or larger, so that minus their logarithms have at most the quantiles of the
    exponential distribution. Where they have larger ones, all are scaled down by the largest ratio.
    """
    surprise = -np.log(np.clip(p, np.finfo(np.float64).tiny, 1.0))
    ratios = np.quantile(surprise, QUANTILES) / -np.log1p(-np.array(QUANTILES))
    return np.asarray(np.exp(-surprise / max(1.0, ratios.max())))


def smallest(p: Floats) -> NDArray[np.bool_]:
    """Which p-values Benjamini and Hochberg call discoveries at the rate `FALSE`, `(n,)`."""
    from scipy.stats import false_discovery_control  # takes long to import

    return np.asarray(false_discovery_control(p) <= FALSE)


def _apart(ages: NDArray[np.float64], classes: NDArray[np.int64], ranges: AgeRanges) -> NDArray[np.int64]:
    """Years between each age and the nearest age of a range, int64 `(n,)`."""
    highs = np.array([np.inf if one.high is None else one.high for one in ranges.ranges])
    outside = np.maximum(ranges.lows[classes] - ages, ages - highs[classes])
    return np.asarray(np.maximum(outside, 0), dtype=np.int64)
