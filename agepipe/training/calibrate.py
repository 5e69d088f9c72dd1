"""Calibrate a trained network: a temperature, and thresholds of its prediction sets.

Both are fitted on the validation rows. A network that was refitted on all development rows has none; then the
out-of-fold predictions of the chosen setting's trials are used. Those networks were trained on fewer rows and often for
fewer epochs, so the calibration may fit the final network less well; the report shows how well it does.
"""

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.core.errors import DataError
from agepipe.model.bundle import Calibrated
from agepipe.model.calibration import fit_temperature, scores, tempered, thresholds
from agepipe.model.decoding import Decoding
from agepipe.training.job import Fitted, Job
from agepipe.training.records import Choice


class Calibration(NamedTuple):
    """The calibration in a bundle's card; the defaults stand for no calibration."""

    temperature: float = 1.0
    thresholds: dict[int, float] = {}
    on: Calibrated = ""


def calibrated(job: Job, fitted: Fitted, choice: Choice | None) -> Calibration:
    """Calibrate a finished training.

    Args:
        job: the training, with its validation rows.
        fitted: its result, with the predictions for these rows.
        choice: result of the search, whose out-of-fold predictions are used if there are no validation rows.

    Raises:
        DataError: the out-of-fold predictions cannot be read.
    """
    if fitted.probabilities is not None and len(fitted.probabilities):
        return calibrate(fitted.probabilities, job.validation.labels, job.learn.decoding, "validation rows")
    if choice is not None and choice.outcomes:
        probabilities, labels = _out_of_fold(choice)
        return calibrate(probabilities, labels, job.learn.decoding, "out-of-fold predictions")
    return Calibration()


def calibrate(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], decoding: Decoding, on: Calibrated
) -> Calibration:
    """Fit the temperature, and the thresholds after temperature scaling.

    Args:
        probabilities: predictions at temperature 1, `(n, classes)`.
        labels: true classes, `(n,)`.
        decoding: how the class is chosen from the probabilities.
        on: name of the rows, for the card.
    """
    temperature = fit_temperature(probabilities, labels)
    return Calibration(temperature, thresholds(scores(tempered(probabilities, temperature), labels, decoding)), on)


def _out_of_fold(choice: Choice) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    try:
        table = pl.concat(pl.read_parquet(path) for path in choice.outcomes)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{choice.outcomes[0]}: not readable predictions ({error}); run the search again.") from error
    columns = table.select(pl.col("^p[0-9]+$").cast(pl.Float64))
    return columns.to_numpy(), table["label"].cast(pl.Int64).to_numpy()
