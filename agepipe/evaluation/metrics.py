"""The figures by which a model is evaluated; tests compare them with scikit-learn's, which is slow to import.

The class order is that of the columns of `probabilities`, which is that of the model's ranges.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from agepipe.core.errors import DataError
from agepipe.model.calibration import TINY, reliability
from agepipe.model.decoding import Decoding, decide

FIGURES = (
    "accuracy", "within_one", "macro_precision", "macro_recall", "macro_f1",
    "weighted_precision", "weighted_recall", "weighted_f1", "mae", "loss", "ece",
)  # fmt: skip
"""All figures, in the order in which they are shown."""


class Predictions(NamedTuple):
    """Labels and predictions of `n` rows, with checked types and shapes."""

    labels: NDArray[np.int64]
    """True classes, `(n,)`."""
    probabilities: NDArray[np.float64]
    """`(n, classes)`, columns in class order."""
    ages: NDArray[np.float64]
    """True ages in years, `(n,)`."""
    years: NDArray[np.float64]
    """Predicted ages in years, `(n,)`."""
    decoding: Decoding = "likeliest"
    """How the class is chosen from the probabilities."""

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The predicted class of each row, `(n,)`."""
        return decide(self.probabilities, self.decoding)

    @property
    def confidence(self) -> NDArray[np.float64]:
        """The probability of each predicted class, `(n,)`."""
        return self.probabilities[np.arange(len(self.labels)), self.predicted]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each predicted class is the true one, `(n,)`."""
        return np.asarray(self.predicted == self.labels)

    @property
    def errors(self) -> NDArray[np.float64]:
        """Absolute difference of predicted and true age in years, `(n,)`."""
        return np.abs(self.ages - self.years)


def figures(rows: Predictions) -> dict[str, float]:
    """All figures of `FIGURES`; macro averages are over all classes, a class without rows counting as 0."""
    counts = class_counts(rows)
    scores = class_scores(*counts)
    return {
        "accuracy": float(rows.right.mean()),
        "within_one": float(np.mean(np.abs(rows.labels - rows.predicted) <= 1)),
        **{f"macro_{name}": float(values.mean()) for name, values in scores.items()},
        **{f"weighted_{name}": float(np.average(values, weights=counts[1])) for name, values in scores.items()},
        "mae": float(rows.errors.mean()),
        "loss": float(row_losses(rows).mean()),
        "ece": reliability(rows.confidence, rows.right).error,
    }


def class_counts(rows: Predictions) -> NDArray[np.float64]:
    """Correct, true and predicted rows of each class, `(3, classes)`."""
    counted = (rows.labels[rows.right], rows.labels, rows.predicted)
    return np.array([np.bincount(one, minlength=rows.probabilities.shape[1]) for one in counted], dtype=np.float64)


def class_scores(
    correct: NDArray[np.float64], true: NDArray[np.float64], predicted: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """`precision`, `recall` and `f1` of each class, 0 where there are no rows.

    Args:
        correct: rows of the class that are predicted as it, `(..., classes)`.
        true: rows of the class, the same shape.
        predicted: rows that are predicted as the class, the same shape.
    """
    parts = {"precision": (correct, predicted), "recall": (correct, true), "f1": (2 * correct, true + predicted)}
    return {
        name: np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
        for name, (part, whole) in parts.items()
    }  # fmt: skip


def checked(
    labels: ArrayLike,
    probabilities: ArrayLike,
    ages: ArrayLike,
    years: ArrayLike,
    decoding: Decoding = "likeliest",
) -> Predictions:
    """The four arrays as a `Predictions`, with types and shapes checked.

    Raises:
        DataError: no rows, shapes that do not fit, a label without a class, or a value that is not finite.
    """
    shares = np.asarray(probabilities, dtype=np.float64)
    if shares.ndim != 2 or shares.shape[1] < 2:
        raise DataError(f"probabilities: shape {shares.shape}, but (rows, classes) with 2 classes or more is needed.")
    if len(shares) == 0:
        raise DataError("probabilities: there are no rows; give at least one.")
    _check_finite("probabilities", shares)
    if shares.min() < 0 or shares.max() > 1 + 1e-4:
        raise DataError(f"probabilities: {shares.min():g} to {shares.max():g}, but they must lie between 0 and 1.")
    true = _column("labels", labels, len(shares))
    outside = (true < 0) | (true >= shares.shape[1]) | (true != np.floor(true))
    if outside.any():
        raise DataError(f"labels: {true[outside][0]:g} has no class; allowed are 0 to {shares.shape[1] - 1}.")
    columns = (_column("ages", ages, len(shares)), _column("years", years, len(shares)))
    return Predictions(true.astype(np.int64), shares, *columns, decoding=decoding)


def check_figures(names: Iterable[str]) -> None:
    """Refuse names that are not in `FIGURES`.

    Raises:
        DataError: names the first of them.
    """
    if unknown := [name for name in names if name not in FIGURES]:
        raise DataError(f"figures: '{unknown[0]}' is not known; choose from {', '.join(FIGURES)}.")


def row_losses(rows: Predictions) -> NDArray[np.float64]:
    """Negative log likelihood of each row's true class in nats, float64 `(n,)`."""
    chosen = rows.probabilities[np.arange(len(rows.labels)), rows.labels]
    return np.asarray(-np.log(np.clip(chosen, TINY, 1.0)), dtype=np.float64)


def confusion(labels: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Counts, int64 `(classes, classes)`: true classes down, predicted classes across, both in class order."""
    cells = np.asarray(labels) * classes + np.asarray(predicted)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes).astype(np.int64)


def by_range(names: tuple[str, ...], rows: Predictions) -> pl.DataFrame:
    """One row a range, in class order: `range`, `support`, `precision`, `recall`, `f1`, `mae` (years, null if empty).

    Args:
        names: names of the ranges, in class order.
        rows: labels and predictions.

    Raises:
        DataError: the number of names is not that of the classes.
    """
    if len(names) != rows.probabilities.shape[1]:
        raise DataError(f"ranges: {len(names)} names for {rows.probabilities.shape[1]} columns of probabilities.")
    counts = class_counts(rows)
    support = counts[1].astype(np.int64)
    wrong = np.bincount(rows.labels, weights=rows.errors, minlength=len(names))
    mae = [float(w / n) if n else None for w, n in zip(wrong, support, strict=True)]
    columns = {"range": names, "support": support, **class_scores(*counts)}
    return pl.DataFrame(columns).with_columns(pl.Series("mae", mae, dtype=pl.Float64))


def _column(name: str, values: ArrayLike, rows: int) -> NDArray[np.float64]:
    column = np.asarray(values, dtype=np.float64)
    if column.shape != (rows,):
        raise DataError(f"{name}: shape {column.shape}, but ({rows},) is needed, one value a row of probabilities.")
    _check_finite(name, column)
    return column


def _check_finite(name: str, values: NDArray[np.float64]) -> None:
    wrong = int(values.size - np.isfinite(values).sum())
    if wrong:
        raise DataError(f"{name}: {wrong} of {values.size} values are not finite; the model or its input is broken.")
