"""Everything that is computed from predictions: figures, their intervals, baselines, slices, doubtful labels.

All intervals come from one set of draws of the groups. The sums for all figures are columns of one matrix, so that
drawing, which takes longest, is done once.
"""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.config.stages import EvaluateSettings
from agepipe.evaluation.bootstrap import centred, column_sums, drawn, group_sums, interval, scores_of, share_limit
from agepipe.evaluation.constant import against_constants, guesses
from agepipe.evaluation.coverage import Sets, coverage_sums, sets_of, slice_coverage
from agepipe.evaluation.metrics import Predictions, by_range, confusion, figures
from agepipe.evaluation.mistakes import label_errors
from agepipe.evaluation.slice_table import slice_sums, slice_table
from agepipe.evaluation.slices import slices
from agepipe.model.ages import AgeRanges
from agepipe.model.bundle import Card
from agepipe.model.calibration import BINS, bins_of, reliability, tempered

YEARS = (1, 2, 5, 10)
"""Years within which the cumulative score counts predicted ages."""

Floats = NDArray[np.float64]


def numbers(predictions: Predictions, table: pl.DataFrame, card: Card, settings: EvaluateSettings) -> dict[str, Any]:
    """The fields of an `Outcome` that are computed from predictions, by name.

    Args:
        predictions: labels and predictions.
        table: the same rows, with `group`, `path`, `digest`, and the columns to slice by.
        card: the model's.
        settings: draws, coverage, level of the sets, minimum size of a slice.
    """
    groups = np.unique(table["group"].to_numpy(), return_inverse=True)[1]
    raw, parts = before_scaling(predictions, card), slices(table, card.ranges.words)
    sets = sets_of(card, predictions, settings.level)
    means, constants = measures(predictions, sets), guesses(predictions)
    measured = parts if sets is not None else []
    # columns for the figures, the calibration error before scaling, the means, the constant guesses, the slices, and
    # the coverage of prediction sets in each slice
    columns = [group_sums(groups, predictions), _gap_sums(groups, raw)]
    columns += [column_sums(groups, np.stack([*one.values()], 1)) for one in (means, constants)]
    columns.append(slice_sums(groups, parts, predictions))
    columns.append(coverage_sums(groups, measured, means.get("coverage", predictions.errors)))
    ends = np.cumsum([part.shape[1] for part in columns])[:-1]
    of_figures, of_raw, of_means, of_constants, of_slices, of_coverage = np.split(
        drawn(np.hstack(columns), settings.draws, settings.seed), ends, 1
    )
    before, after = (reliability(one.confidence, one.right) for one in (raw, predictions))
    found = figures(predictions) | {"ece_before": before.error} | {k: float(v.mean()) for k, v in means.items()}
    rows = of_slices[:, 0]
    draws = scores_of(of_figures, len(card.ranges)) | {"ece_before": np.abs(of_raw).sum(axis=1) / rows}
    draws |= {name: of_means[:, at] / rows for at, name in enumerate(means)}
    draws |= {name: centred(draws[name], found[name]) for name in ("ece", "ece_before")}
    guessed = {name: of_constants[:, at] / rows for at, name in enumerate(constants)}
    intervals = {name: interval(values, settings.confidence) for name, values in draws.items()}
    shares = {name for name in ("accuracy", "within_one", *means) if name != "set_size"}
    return {
        "figures": found,
        "intervals": intervals | _ends({name: found[name] for name in shares}, groups, settings.confidence),
        "constants": against_constants(predictions, draws, guessed, found, settings.confidence),
        "baselines": baselines(predictions, card.ranges),
        "ranges": by_range(card.ranges.names, predictions),
        "confusion": confusion(predictions.labels, predictions.predicted, len(card.ranges)),
        "before": before,
        "after": after,
        "sets": sets,
        "slices": slice_table(groups, parts, columns[-2], of_slices, settings).join(
            slice_coverage(groups, measured, columns[-1], of_coverage, settings.confidence),
            on=["kind", "slice"],
            how="left",
            maintain_order="left",
        ),
        "doubtful": label_errors(table, predictions, card.ranges),
    }


def before_scaling(predictions: Predictions, card: Card) -> Predictions:
    """The predictions before temperature scaling, with the same decoding."""
    if card.temperature == 1.0:
        return predictions
    return predictions._replace(probabilities=tempered(predictions.probabilities, 1 / card.temperature))


def measures(predictions: Predictions, sets: Sets | None) -> dict[str, Floats]:
    """Values that are averaged over rows, each `(n,)`: ages within `YEARS`, and the measures of prediction sets."""
    found = {f"within_{years}_years": (predictions.errors <= years).astype(np.float64) for years in YEARS}
    return found if sets is None else found | sets.measures(predictions.labels)


def baselines(predictions: Predictions, ranges: AgeRanges) -> dict[str, dict[str, float]]:
    """The figures of two constant predictions, both derived from these rows, by name.

    `majority` predicts the most frequent range and its middle age, `median` the median age and its range. Both predict
    the rows' class shares as probabilities, which are the best constant ones.
    """
    count, classes = predictions.probabilities.shape
    shares = np.tile(np.bincount(predictions.labels, minlength=classes) / count, (count, 1))
    commonest = ranges.mid_ages[shares[0].argmax()]
    guess = predictions._replace(probabilities=shares)
    return {
        "majority": figures(guess._replace(years=np.full(count, commonest), decoding="likeliest")),
        "median": figures(guess._replace(years=np.full(count, np.median(predictions.ages)), decoding="median")),
    }


def _ends(shares: dict[str, float], groups: NDArray[np.int64], confidence: float) -> dict[str, tuple[float, float]]:
    """Exact intervals of shares that are 0 or 1, for which all draws of the bootstrap are equal."""
    end = share_limit(len(np.unique(groups)), confidence)
    return {name: (0.0, 1 - end) if share == 0 else (end, 1.0) for name, share in shares.items() if share in (0, 1)}


def _gap_sums(groups: NDArray[np.int64], predictions: Predictions) -> Floats:
    """Confidence minus right rows per bin of confidence, of each group."""
    gaps = np.zeros((len(groups), BINS))
    gaps[np.arange(len(groups)), bins_of(predictions.confidence)] = predictions.confidence - predictions.right
    return column_sums(groups, gaps)
