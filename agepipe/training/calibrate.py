"""The finished network is told how sure it may be: a temperature and the thresholds of its prediction sets.

Both come from rows that it was not fitted on and that are no test rows: the validation part; or, where it was refitted
on all development rows, what the trials of the same setting said of the folds that they had not seen. Those networks
learnt from fewer rows, and often for fewer epochs, so how well this fits the refitted one is for the report to show.
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
    """What goes into the card; as it stands, that nothing was calibrated."""

    temperature: float = 1.0
    thresholds: dict[int, float] = {}
    on: Calibrated = ""


def calibrated(job: Job, fitted: Fitted, choice: Choice | None) -> Calibration:
    """Calibrate a finished training.

    Args:
        job: its validation rows.
        fitted: what it said of them.
        choice: the search before it, if any; its out-of-fold predictions are used where there are no validation rows.

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
    """The temperature that these rows ask for, and the thresholds once it is applied.

    Args:
        probabilities: at temperature 1, `(n, classes)`.
        labels: true classes, `(n,)`.
        decoding: how one class is answered.
        on: what the rows are.
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
