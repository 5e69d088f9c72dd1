"""Bootstrap intervals over groups of duplicates, fast enough to be computed for every figure of every evaluation.

Copies of one photograph are one observation: drawing rows would count them as several and make intervals too
narrow. So whole groups are drawn with replacement, as many as there are (the cluster bootstrap; Davison and Hinkley,
Bootstrap Methods and their Application, 1997, section 3.8), and the interval is that of the percentiles.

Every figure is a function of a few sums over rows (correct, true and predicted rows a class, absolute error, loss),
so a draw is one row of a matrix product: how often each group was drawn, times the sums of each group.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agepipe.config import LOWER_IS_BETTER
from agepipe.errors import DataError
from agepipe.judge.metrics import FIGURES, Judged, row_losses

CHUNK = 4_000_000
"""Numbers in the largest array of a chunk of draws: 32 MB."""

Floats = NDArray[np.float64]


class Difference(NamedTuple):
    """How far one model is from another on the same rows."""

    first: float
    second: float
    difference: float
    """First minus second, in the figure's own unit: for `mae` and `loss` a negative one is the better."""
    low: float
    high: float
    share_better: float
    """Share of the draws in which the first is strictly better."""


def bootstrap(
    groups: ArrayLike,
    rows: Judged,
    *,
    wanted: tuple[str, ...] = FIGURES,
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """The interval of each wanted figure, from the same draws.

    Args:
        groups: name of the group of duplicates of each row, `(n,)`.
        rows: what is known and was said about the rows.
        wanted: names out of `FIGURES`.
        draws: how often the groups are drawn anew.
        confidence: coverage of the intervals.
        seed: seed of the draws.

    Raises:
        DataError: no rows, not one group a row, or an unknown figure.
    """
    _check_wanted(wanted)
    sums = group_sums(groups, rows)
    classes = rows.probabilities.shape[1]
    drawn: dict[str, list[Floats]] = {name: [] for name in wanted}
    for weights in _weights(len(sums), draws, seed):
        scores = scores_of(weights @ sums, classes)
        for name in wanted:
            drawn[name].append(scores[name])
    return {name: _interval(np.concatenate(parts), confidence) for name, parts in drawn.items()}


def paired(
    groups: ArrayLike,
    first: Judged,
    second: Judged,
    metric: str,
    *,
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Compare two models on the same rows: both are judged on each draw of the groups, and the difference is kept.

    What makes some rows harder than others then cancels, so a small true difference shows in few rows.

    Raises:
        DataError: no rows, not the same rows, not one group a row, or an unknown figure.
    """
    _check_wanted((metric,))
    if len(first.labels) != len(second.labels):
        raise DataError(f"rows: {len(first.labels)} and {len(second.labels)}; two models are compared on the same.")
    sums = (group_sums(groups, first), group_sums(groups, second))
    classes = (first.probabilities.shape[1], second.probabilities.shape[1])
    drawn = np.concatenate(
        [
            np.stack([scores_of(weights @ s, k)[metric] for s, k in zip(sums, classes, strict=True)])
            for weights in _weights(len(sums[0]), draws, seed)
        ],
        axis=1,
    )
    whole = [float(scores_of(s.sum(axis=0)[None], k)[metric][0]) for s, k in zip(sums, classes, strict=True)]
    differences = drawn[0] - drawn[1]
    better = differences < 0 if metric in LOWER_IS_BETTER else differences > 0
    interval = _interval(differences, confidence)
    return Difference(whole[0], whole[1], whole[0] - whole[1], *interval, float(better.mean()))


def group_sums(groups: ArrayLike, rows: Judged) -> Floats:
    """What each group adds to the sums that all figures are made of, float64 `(groups, 3 classes + 4)`.

    Columns: correct rows a class, true rows a class, predicted rows a class, rows within one class, rows, absolute
    error in years, loss in nats.

    Raises:
        DataError: no rows, or not one group a row.
    """
    names = np.asarray(groups)
    if names.shape != rows.labels.shape or len(names) == 0:
        raise DataError(
            f"groups: shape {names.shape} for {len(rows.labels)} rows; each row needs a group, at least one."
        )
    found, member = np.unique(names, return_inverse=True)
    classes, predicted = rows.probabilities.shape[1], rows.predicted
    sums = np.zeros((len(found), 3 * classes + 4))
    np.add.at(sums, (member, rows.labels), rows.labels == predicted)
    np.add.at(sums, (member, classes + rows.labels), 1.0)
    np.add.at(sums, (member, 2 * classes + predicted), 1.0)
    near = np.abs(rows.labels - predicted) <= 1
    for column, values in enumerate((near, np.ones(len(names)), np.abs(rows.ages - rows.years), row_losses(rows))):
        sums[:, 3 * classes + column] = np.bincount(member, weights=values, minlength=len(found))
    return sums


def scores_of(totals: Floats, classes: int) -> dict[str, Floats]:
    """All figures, each float64 `(draws,)`, from the summed columns of `group_sums`, `(draws, 3 classes + 4)`."""
    correct, true, predicted = (totals[:, part * classes : (part + 1) * classes] for part in range(3))
    near, rows, error, loss = totals[:, 3 * classes :].T
    a_class = {
        "precision": _ratio(correct, predicted),
        "recall": _ratio(correct, true),
        "f1": _ratio(2 * correct, true + predicted),
    }
    share = true / rows[:, None]
    scores = {"accuracy": correct.sum(axis=1) / rows, "within_one": near / rows}
    scores |= {f"macro_{name}": values.mean(axis=1) for name, values in a_class.items()}
    scores |= {f"weighted_{name}": (values * share).sum(axis=1) for name, values in a_class.items()}
    return scores | {"mae": error / rows, "loss": loss / rows}


def _weights(groups: int, draws: int, seed: int) -> Iterator[Floats]:
    """How often each group is drawn, float64 `(some draws, groups)`; the chunks together have `draws` rows."""
    random = np.random.default_rng(seed)
    step = max(1, CHUNK // groups)
    for start in range(0, draws, step):
        chunk = np.empty((min(step, draws - start), groups))
        for row in chunk:
            row[:] = np.bincount(random.integers(0, groups, groups, dtype=np.int32), minlength=groups)
        yield chunk


def _ratio(part: Floats, whole: Floats) -> Floats:
    """`part / whole`, 0 where there is no whole (scikit-learn's `zero_division=0`)."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _interval(values: Floats, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _check_wanted(wanted: tuple[str, ...]) -> None:
    unknown = [name for name in wanted if name not in FIGURES]
    if unknown:
        raise DataError(f"figures: '{unknown[0]}' is not known; choose from {', '.join(FIGURES)}.")
