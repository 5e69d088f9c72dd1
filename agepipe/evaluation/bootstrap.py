"""Bootstrap intervals over groups of duplicates, fast enough to be computed for every figure of every evaluation.

Copies of one photograph are one observation. Drawing rows would count them as several and make intervals too narrow. So
whole groups are drawn with replacement, as many as there are (the cluster bootstrap; Davison and Hinkley, Bootstrap
Methods and their Application, 1997, section 3.8), and the interval is given by percentiles of the draws.

Every figure is a function of a few sums over rows (correct, true and predicted rows per class, absolute error, loss,
confidence minus correct rows per bin). So a draw is one row of a matrix product: the number of times that each group
was drawn, times the sums of each group.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agepipe.core.errors import DataError
from agepipe.evaluation.metrics import FIGURES, Predictions, check_figures, class_scores, row_losses
from agepipe.model.calibration import BINS, bins_of

CHUNK = 4_000_000
"""Numbers in the largest array of a chunk of draws: 32 MB."""

Floats = NDArray[np.float64]


def bootstrap(
    groups: ArrayLike,
    rows: Predictions,
    *,
    wanted: tuple[str, ...] = FIGURES,
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """The interval of each wanted figure, from the same draws.

    Args:
        groups: name of the group of duplicates of each row, `(n,)`.
        rows: labels and predictions.
        wanted: names out of `FIGURES`.
        draws: number of draws.
        confidence: coverage of the intervals.
        seed: seed of the draws.

    Raises:
        DataError: no rows, not one group a row, or an unknown figure.
    """
    check_figures(wanted)
    sums, classes = group_sums(groups, rows), rows.probabilities.shape[1]
    whole, found = scores_of(sums.sum(axis=0)[None], classes), scores_of(drawn(sums, draws, seed), classes)
    found["ece"] = centred(found["ece"], float(whole["ece"][0]))
    return {name: interval(found[name], confidence) for name in wanted}


def group_sums(groups: ArrayLike, rows: Predictions) -> Floats:
    """The sums over each group's rows from which all figures are computed, float64 `(groups, 3 classes + 4 + BINS)`.

    Columns: correct rows per class, true rows per class, predicted rows per class, rows within one class, rows,
    absolute error in years, loss in nats, and confidence minus correct rows per bin of confidence.

    Raises:
        DataError: no rows, or not one group a row.
    """
    found, member = _members(groups, len(rows.labels))
    classes, predicted, right = rows.probabilities.shape[1], rows.predicted, rows.right
    sums = np.zeros((found, 3 * classes + 4 + BINS))
    np.add.at(sums, (member, rows.labels), right)
    np.add.at(sums, (member, classes + rows.labels), 1.0)
    np.add.at(sums, (member, 2 * classes + predicted), 1.0)
    near = np.abs(rows.labels - predicted) <= 1
    for column, values in enumerate((near, np.ones(len(near)), rows.errors, row_losses(rows))):
        sums[:, 3 * classes + column] = np.bincount(member, weights=values, minlength=found)
    sure = rows.confidence
    np.add.at(sums, (member, 3 * classes + 4 + bins_of(sure)), sure - right)
    return sums


def column_sums(groups: ArrayLike, columns: Floats) -> Floats:
    """The sum of each column over each group's rows, float64 `(groups, k)`, from `(n, k)`; groups as `group_sums`.

    Raises:
        DataError: no rows, or not one group a row.
    """
    _, member = _members(groups, len(columns))
    order = np.argsort(member, kind="stable")
    starts = np.flatnonzero(np.diff(member[order], prepend=-1))
    return np.asarray(np.add.reduceat(columns[order], starts, axis=0), dtype=np.float64)


def scores_of(totals: Floats, classes: int) -> dict[str, Floats]:
    """All figures, each float64 `(draws,)`, from summed columns of `group_sums`, `(draws, 3 classes + 4 + BINS)`."""
    correct, true, predicted = (totals[:, part * classes : (part + 1) * classes] for part in range(3))
    near, rows, error, loss = totals[:, 3 * classes : 3 * classes + 4].T
    a_class = class_scores(correct, true, predicted)
    share = true / rows[:, None]
    scores = {"accuracy": correct.sum(axis=1) / rows, "within_one": near / rows}
    scores |= {f"macro_{name}": values.mean(axis=1) for name, values in a_class.items()}
    scores |= {f"weighted_{name}": (values * share).sum(axis=1) for name, values in a_class.items()}
    scores |= {"mae": error / rows, "loss": loss / rows}
    return scores | {"ece": np.abs(totals[:, 3 * classes + 4 :]).sum(axis=1) / rows}


def drawn(sums: Floats, draws: int, seed: int) -> Floats:
    """The sums of each draw of the groups, float64 `(draws, columns)`, from those of each group `(groups, columns)`."""
    return np.concatenate([weights @ sums for weights in _weights(len(sums), draws, seed)])


def interval(values: Floats, confidence: float) -> tuple[float, float]:
    """The percentiles that enclose the share `confidence` of the draws; NaN draws are ignored."""
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def share_limit(groups: int, confidence: float) -> float:
    """Exact lower limit of a share that is 1 in all groups (Clopper and Pearson, 1934), where all draws are equal."""
    return float(((1 - confidence) / 2) ** (1 / groups))


def centred(values: Floats, value: float) -> Floats:
    """Draws of a calibration error, shifted so that their mean is the error itself, and at least 0.

    Each draw has the error's upward bias a second time, so the error could otherwise be below its own interval.
    """
    return np.asarray(np.maximum(values - values.mean() + value, 0.0))


def _members(groups: ArrayLike, rows: int) -> tuple[int, NDArray[np.int64]]:
    """The number of groups, and the index of each row's group, `(n,)`."""
    names = np.asarray(groups)
    if names.shape != (rows,) or rows == 0:
        raise DataError(f"groups: shape {names.shape} for {rows} rows; each row needs a group, at least one.")
    found, member = np.unique(names, return_inverse=True)
    return len(found), member


def _weights(groups: int, draws: int, seed: int) -> Iterator[Floats]:
    """The number of times that each group is drawn, in chunks of draws, float64 `(some draws, groups)`."""
    random = np.random.default_rng(seed)
    step = max(1, CHUNK // groups)
    for start in range(0, draws, step):
        chunk = np.empty((min(step, draws - start), groups))
        for row in chunk:
            row[:] = np.bincount(random.integers(0, groups, groups, dtype=np.int32), minlength=groups)
        yield chunk
