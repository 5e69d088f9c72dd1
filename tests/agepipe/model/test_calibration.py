"""Reliability and temperature."""

import numpy as np
import pytest

from agepipe.core.errors import DataError
from agepipe.evaluation.bootstrap import group_sums, scores_of
from agepipe.evaluation.metrics import checked
from agepipe.model.calibration import BINS, bins_of, by_chance, fit_temperature, reliability, tempered


def drawn(count: int = 20_000, classes: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and classes that truly follow them."""
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.ones(classes), count)
    return shares, (shares.cumsum(axis=1) < random.random((count, 1))).sum(axis=1)


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_the_fitted_temperature_is_the_one_that_was_planted(true: float) -> None:
    shares, labels = drawn()
    assert fit_temperature(tempered(shares, 1 / true), labels) == pytest.approx(true, rel=0.05)


def test_a_temperature_mends_the_calibration_error_and_changes_no_answer() -> None:
    shares, labels = drawn()
    sure = tempered(shares, 0.4)

    def error(found: np.ndarray) -> float:
        return reliability(found.max(axis=1), found.argmax(axis=1) == labels).error

    mended = tempered(sure, fit_temperature(sure, labels))
    assert error(mended) < 0.02 < 0.1 < error(sure)
    assert (mended.argmax(axis=1) == sure.argmax(axis=1)).all()


def test_the_error_of_a_perfect_model_is_not_zero_in_few_rows() -> None:
    few, many = (np.mean([_error(*drawn(count, seed=seed)) for seed in range(20)]) for count in (100, 10_000))
    assert many < 0.02 < few


def test_the_error_by_chance_is_what_a_perfect_model_shows() -> None:
    found = [(_error(*rows), by_chance(rows[0].max(axis=1))) for rows in (drawn(2000, seed=k) for k in range(30))]
    shown, expected = np.mean(found, axis=0)
    assert shown == pytest.approx(expected, rel=0.1)


def _error(shares: np.ndarray, labels: np.ndarray) -> float:
    return reliability(shares.max(axis=1), shares.argmax(axis=1) == labels).error


def test_nothing_can_be_said_of_no_rows() -> None:
    with pytest.raises(DataError):
        reliability(np.empty(0), np.empty(0, dtype=bool))
    with pytest.raises(DataError, match=r"final\.validation"):
        fit_temperature(np.empty((0, 3)), np.empty(0, dtype=int))


def test_the_error_is_that_of_fifteen_bins_in_the_figure_and_in_its_draws() -> None:
    """Confidence too high in one bin and too low in the next cancel in wider bins, and so in a smaller error."""
    rows = 100
    sure = np.repeat((np.arange(15) + 0.5) / 15, rows)
    share = np.clip(sure + np.where(np.repeat(np.arange(15), rows) % 2, 0.03, -0.03), 0, 1)
    right = np.tile(np.arange(rows), 15) < np.round(share * rows)
    expected = np.mean([abs(sure[at] - right[at : at + rows].mean()) for at in range(0, 15 * rows, rows)])
    assert (BINS, set(bins_of(sure))) == (15, set(range(15)))
    assert reliability(sure, right).error == pytest.approx(expected)
    assert reliability(sure, right, bins=5).error < 0.6 * expected
    judged = checked(np.where(right, 0, 1), np.stack([sure, 1 - sure], axis=1), right, right, "likeliest")
    confident = judged.confidence  # of the answer, so one half or more
    found = scores_of(group_sums(np.arange(len(sure)), judged).sum(axis=0)[None], 2)["ece"][0]
    assert found == pytest.approx(reliability(confident, judged.right, bins=15).error)
    assert found != pytest.approx(reliability(confident, judged.right, bins=5).error, rel=1e-3)
