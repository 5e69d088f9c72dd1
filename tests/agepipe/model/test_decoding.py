"""Answers and prediction sets."""

import numpy as np
import pytest

from agepipe.core.errors import DataError
from agepipe.model.calibration import scores, thresholds
from agepipe.model.decoding import Decoding, decide, sets


def shares(count: int, classes: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(classes, 0.6), count)


def test_the_median_costs_the_fewest_ranges_of_error() -> None:
    probabilities = shares(300)
    classes = np.arange(6)
    cost = np.abs(classes[:, None] - classes) @ probabilities.T
    chosen = decide(probabilities, "median")
    assert np.allclose(cost[chosen, np.arange(300)], cost.min(axis=0))
    assert (chosen != decide(probabilities)).any()


@pytest.mark.parametrize("decoding", ["likeliest", "median"])
def test_sets_are_contiguous_hold_the_answer_and_grow_with_the_threshold(decoding: Decoding) -> None:
    probabilities = shares(300)
    answer = decide(probabilities, decoding)
    before = np.zeros(300)
    for threshold in (0.0, 0.3, 0.6, 0.9, 1.0):
        low, high = sets(probabilities, threshold, decoding)
        assert ((low <= answer) & (answer <= high)).all()
        assert (high - low >= before).all()
        before = high - low
    assert (before == 5).all()


def _grown(row: np.ndarray, start: int) -> list[tuple[int, int, float]]:
    """One row's sets by hand, smallest first: first and last class, and the probability of the set before."""
    low = high = start
    found = [(low, high, 0.0)]
    while (low, high) != (0, len(row) - 1):
        before = float(row[low : high + 1].sum())
        younger = row[low - 1] if low > 0 else -1.0
        older = row[high + 1] if high < len(row) - 1 else -1.0
        low, high = (low - 1, high) if younger >= older else (low, high + 1)
        found.append((low, high, before))
    return found


@pytest.mark.parametrize("decoding", ["likeliest", "median"])
def test_sets_and_scores_are_those_of_the_rows_taken_one_by_one(decoding: Decoding) -> None:
    probabilities = np.vstack([shares(200), np.full((1, 6), 1 / 6), np.eye(6)])
    labels = np.arange(len(probabilities)) % 6
    steps = []
    for row in probabilities:
        half = next(at for at in range(6) if row[: at + 1].sum() >= row.sum() / 2)
        steps.append(_grown(row, half if decoding == "median" else int(row.argmax())))
    wanted = [
        next(before for low, high, before in row if low <= label <= high)
        for row, label in zip(steps, labels, strict=True)
    ]
    assert np.allclose(scores(probabilities, labels, decoding), wanted)
    for threshold in (0.0, 0.35, 0.8, 1.0):
        first, last = sets(probabilities, threshold, decoding)
        kept = [[one for one in row if one[2] <= threshold or threshold >= 1][-1] for row in steps]
        assert first.tolist() == [low for low, _, _ in kept]
        assert last.tolist() == [high for _, high, _ in kept]
        assert first.dtype == last.dtype == np.int64


@pytest.mark.parametrize("level", [50, 80, 90, 95])
@pytest.mark.parametrize("decoding", ["likeliest", "median"])
def test_sets_reach_their_level_on_exchangeable_rows(level: int, decoding: Decoding) -> None:
    random = np.random.default_rng(level)
    covered = []
    for _ in range(60):
        probabilities = shares(600, seed=int(random.integers(1 << 30)))
        sure = probabilities**1.7 + 1e-9  # the network is surer than it ought to be; the level holds all the same
        said = sure / sure.sum(axis=1, keepdims=True)
        labels = (probabilities.cumsum(axis=1) < random.random((600, 1))).sum(axis=1).clip(0, 5)
        threshold = thresholds(scores(said[:300], labels[:300], decoding))[level]
        low, high = sets(said[300:], threshold, decoding)
        covered.append(np.mean((low <= labels[300:]) & (labels[300:] <= high)))
    assert np.mean(covered) == pytest.approx(level / 100, abs=0.02)


def test_too_few_rows_for_a_level_give_sets_of_all_ranges() -> None:
    found = thresholds(np.array([0.2, 0.4, 0.9]))
    assert found[75] == 0.9
    assert found[76] == 1.0


def test_no_rows_cannot_calibrate() -> None:
    with pytest.raises(DataError, match=r"final\.validation"):
        thresholds(np.empty(0))
