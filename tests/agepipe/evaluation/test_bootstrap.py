import time
import tracemalloc

import numpy as np
import pytest

from agepipe.core.errors import DataError
from agepipe.evaluation.bootstrap import bootstrap, column_sums, group_sums, scores_of
from agepipe.evaluation.metrics import FIGURES, Predictions, checked, figures


def rows(count: int, seed: int = 0, classes: int = 5, skill: float = 0.5) -> Predictions:
    """Answers that are right in about `skill` of the rows."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    said = np.where(random.random(count) < skill, labels, random.integers(0, classes, count))
    probabilities = np.full((count, classes), 0.4 / (classes - 1))
    probabilities[np.arange(count), said] = 0.6
    return checked(labels, probabilities, labels * 10 + 5, said * 10 + random.normal(5, 2, count))


def repeated(judged: Predictions, times: np.ndarray) -> Predictions:
    return Predictions(*(np.repeat(values, times, axis=0) for values in judged[:4]))


def test_a_draw_is_the_figures_of_the_rows_drawn() -> None:
    judged = rows(60, classes=6)
    groups = np.random.default_rng(1).integers(0, 25, 60).astype(str)
    sums, names = group_sums(groups, judged), np.unique(groups)
    for seed in range(20):
        weights = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)))
        drawn = repeated(judged, weights[np.searchsorted(names, groups)])
        found = scores_of(weights[None] @ sums, 6)
        for name, value in figures(drawn).items():
            assert found[name][0] == pytest.approx(value), name


def test_every_figure_lies_in_its_interval_and_a_seed_gives_one_answer() -> None:
    judged = rows(400)
    first = bootstrap(np.arange(400), judged, seed=3)
    assert first == bootstrap(np.arange(400), judged, seed=3)
    assert first != bootstrap(np.arange(400), judged, seed=4)
    assert tuple(first) == FIGURES
    for name, value in figures(judged).items():
        low, high = first[name]
        assert low < value < high, name


def test_copies_of_a_photograph_do_not_narrow_the_interval() -> None:
    judged, names = rows(200), np.arange(200)
    once = bootstrap(names, judged, seed=1)
    copied, copies = repeated(judged, np.full(200, 4)), np.repeat(names, 4)
    assert bootstrap(copies, copied, seed=1)["accuracy"] == pytest.approx(once["accuracy"])
    as_rows = bootstrap(np.arange(800), copied, seed=1)["accuracy"]
    width, narrowed = once["accuracy"][1] - once["accuracy"][0], as_rows[1] - as_rows[0]
    assert narrowed == pytest.approx(width / 2, rel=0.15)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    means = ("accuracy", "within_one", "mae", "loss")
    truth = figures(rows(400_000, seed=10_000))
    hits = dict.fromkeys(means, 0)
    for seed in range(200):
        found = bootstrap(np.arange(150), rows(150, seed), wanted=means, draws=400, confidence=0.9, seed=0)
        for name, (low, high) in found.items():
            hits[name] += low <= truth[name] <= high
    assert all(0.83 <= count / 200 <= 0.96 for count in hits.values()), hits


def test_a_calibration_error_lies_in_its_interval_however_good_the_model_is() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        sure = random.uniform(0.5, 1, 2000)
        labels = (random.random(2000) > sure).astype(int)
        judged = checked(labels, np.stack([sure, 1 - sure], axis=1), labels, labels)
        low, high = bootstrap(np.arange(2000), judged, wanted=("ece",), draws=200)["ece"]
        assert 0 <= low <= figures(judged)["ece"] <= high


def test_wider_confidence_gives_wider_intervals() -> None:
    judged = rows(100)
    narrow, wide = (bootstrap(np.arange(100), judged, confidence=c, wanted=("mae",))["mae"] for c in (0.8, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_one_group_has_no_doubt_to_show() -> None:
    low, high = bootstrap(["same"] * 30, rows(30), wanted=("accuracy",))["accuracy"]
    assert low == high


def test_bad_questions_are_refused() -> None:
    judged = rows(20)
    with pytest.raises(DataError, match="'speed' is not known"):
        bootstrap(np.arange(20), judged, wanted=("speed",))
    with pytest.raises(DataError, match="groups: shape"):
        bootstrap(np.arange(19), judged)
    with pytest.raises(DataError, match="groups: shape"):
        column_sums([], np.empty((0, 2)))
    assert column_sums(["one"], np.array([[3.0, 4.0]])).tolist() == [[3.0, 4.0]]


def test_it_is_fast_and_its_memory_is_bounded() -> None:
    # a tenth of the draws of the bound: 23,000 rows and 10,000 draws in ten seconds
    judged = rows(23_000, classes=14)
    groups = np.random.default_rng(0).integers(0, 22_000, 23_000).astype(str)
    begin = time.process_time()
    bootstrap(groups, judged, draws=1000)
    assert time.process_time() - begin < 2.0
    tracemalloc.start()
    bootstrap(groups, judged, draws=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6
