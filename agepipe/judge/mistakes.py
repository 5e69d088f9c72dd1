"""Rows worth a person's look: the surest wrong answers, and labels that are likely to be wrong themselves.

Label errors are sought by confident learning (Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty
in dataset labels", 2021): the model believes a class when its probability reaches the mean that it has on rows which
carry that class, so that a class of which it is rarely sure has a lower bar. A row whose believed class is another than
its label is suspect, the more the less probable its label is (the paper's self-confidence). That needs answers about
rows that the network was not fitted on, which judged rows are.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.ages import AgeRanges
from agepipe.judge.metrics import Judged

MISTAKES = 24
"""Wrong answers that the report shows as pictures."""
DOUBTS = 20
"""Likely label errors that the report lists."""


def surest_mistakes(judged: Judged, count: int = MISTAKES) -> NDArray[np.int64]:
    """Places of the wrong answers of which the model is surest, int64 `(count at most,)`, the surest first."""
    wrong = np.flatnonzero(~judged.right)
    return wrong[np.argsort(-judged.confidence[wrong], kind="stable")][:count]


def believed(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    """The class that the model believes each row to be, int64 `(n,)`; -1 where no probability reaches its bar.

    Args:
        labels: given classes, `(n,)`.
        probabilities: of rows that the network was not fitted on, `(n, classes)`.
    """
    classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    count = np.bincount(labels, minlength=classes)
    bar = np.full(classes, np.inf)  # a class that no row carries is never believed
    np.divide(np.bincount(labels, weights=own, minlength=classes), count, out=bar, where=count > 0)
    reached = np.where(probabilities >= bar, probabilities, -1.0)
    return np.where(reached.max(axis=1) >= 0, reached.argmax(axis=1), -1)


def label_errors(table: pl.DataFrame, judged: Judged, ranges: AgeRanges) -> pl.DataFrame:
    """Rows whose label is likely wrong, the likeliest first.

    A row is left out when its age lies within the model's mean age error of the believed range, for there the two are
    not to be told apart by anyone.

    Args:
        table: judged rows, with `index`, `path`, `digest` and `age`.
        judged: what was said about them.
        ranges: the model's own.

    Returns:
        `index`, `path`, `digest`, `age given`, `range given`, `range suggested` (in words that no spreadsheet takes for
        a date), `years apart`, `age predicted`, `probability given`, `probability suggested`.
    """
    suggested = believed(judged.labels, judged.probabilities)
    apart = _apart(judged.ages, suggested, ranges)
    places = np.flatnonzero((suggested >= 0) & (suggested != judged.labels) & (apart > judged.errors.mean()))
    given, other = (judged.probabilities[places, classes[places]] for classes in (judged.labels, suggested))
    words = np.array(ranges.words)
    found = table[places].select("index", "path", "digest", pl.col("age").alias("age given"))
    return found.with_columns(
        pl.Series("range given", words[judged.labels[places]], dtype=pl.String),
        pl.Series("range suggested", words[suggested[places]], dtype=pl.String),
        pl.Series("years apart", apart[places]),
        pl.Series("age predicted", judged.years[places]).round(1),
        pl.Series("probability given", given).round(4),
        pl.Series("probability suggested", other).round(4),
    )[np.lexsort((-other, given))]


def _apart(ages: NDArray[np.float64], classes: NDArray[np.int64], ranges: AgeRanges) -> NDArray[np.int64]:
    """Years between each age and the nearest age of a range, int64 `(n,)`."""
    highs = np.array([np.inf if one.high is None else one.high for one in ranges.ranges])
    outside = np.maximum(ranges.lows[classes] - ages, ages - highs[classes])
    return np.asarray(np.maximum(outside, 0), dtype=np.int64)
