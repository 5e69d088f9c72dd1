"""All figures of an evaluation together."""

import time

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agepipe.config.stages import EvaluateSettings
from agepipe.evaluation.bootstrap import bootstrap
from agepipe.evaluation.compute import YEARS, baselines, numbers
from agepipe.evaluation.metrics import FIGURES, Predictions, checked
from agepipe.model.ages import AgeRanges
from agepipe.model.bundle import Card
from agepipe.model.calibration import tempered

RANGES = AgeRanges.of("utkface")


def card(ranges: AgeRanges = RANGES, **changes: object) -> Card:
    known = {"size": 64, "input": 64, "network": "n", "mean": (0.5,) * 3, "std": (0.2,) * 3, "rows": "0" * 64}
    return Card.model_validate({"ranges": ranges, **known, **changes})


def drawn(count: int, seed: int = 0, ranges: AgeRanges = RANGES) -> tuple[Predictions, pl.DataFrame]:
    """Rows whose ranges truly follow the probabilities, with all that slices are cut by."""
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.full(len(ranges), 0.3), count)
    labels = (shares.cumsum(axis=1) < random.random((count, 1))).sum(axis=1).clip(0, len(ranges) - 1)
    ages = ranges.mid_ages[labels].astype(int)
    judged = checked(labels, shares, ages, ages + random.normal(0, 5, count))
    table = pl.DataFrame(
        {
            "index": range(count), "path": [f"{row}.jpg" for row in range(count)],
            "digest": [f"{row:064x}" for row in range(count)], "age": ages, "label": labels,
            "group": [f"{row:064x}" for row in random.integers(0, max(1, count * 22 // 23), count)],
            "gender": random.integers(0, 2, count), "race": random.integers(0, 5, count),
            "width": random.integers(100, 900, count), "height": random.integers(100, 900, count),
            "sharpness": random.random(count), "brightness": random.random(count),
        }
    )  # fmt: skip
    return judged, table


def test_the_figures_have_the_intervals_that_each_has_by_itself() -> None:
    judged, table = drawn(600)
    found = numbers(judged, table, card(), EvaluateSettings(draws=300))
    alone = bootstrap(table["group"].to_numpy(), judged, draws=300, seed=EvaluateSettings().seed)
    for name in FIGURES:
        assert found["intervals"][name] == pytest.approx(alone[name]), name
    for name, (low, high) in found["intervals"].items():
        assert low <= found["figures"][name] <= high, name


def test_the_cumulative_score_rises_and_counts_rows() -> None:
    judged, table = drawn(500)
    found = numbers(judged, table, card(), EvaluateSettings(draws=100))["figures"]
    shares = [found[f"within_{years}_years"] for years in YEARS]
    assert shares == sorted(shares)
    assert shares[2] == np.mean(np.abs(judged.ages - judged.years) <= 5)


def test_the_error_before_tempering_is_that_of_the_network() -> None:
    judged, table = drawn(4000)
    sure = judged._replace(probabilities=tempered(judged.probabilities, 0.4))
    served = numbers(judged, table, card(temperature=2.5), EvaluateSettings(draws=100))
    bare = numbers(sure, table, card(), EvaluateSettings(draws=100))
    assert served["figures"]["ece_before"] == pytest.approx(bare["figures"]["ece"], abs=1e-6)
    assert served["figures"]["ece"] < 0.03 < 0.1 < served["figures"]["ece_before"]
    assert bare["figures"]["ece_before"] == bare["figures"]["ece"]


def test_sets_are_measured_where_there_is_a_threshold_for_the_level() -> None:
    judged, table = drawn(800)
    asked = EvaluateSettings(draws=200, level=80)
    found = numbers(judged, table, card(thresholds={80: 0.8}), asked)
    sets = found["sets"]
    assert found["figures"]["coverage"] == ((sets.low <= judged.labels) & (judged.labels <= sets.high)).mean()
    assert found["figures"]["set_size"] == (sets.high - sets.low + 1).mean()
    assert found["figures"]["single"] == (sets.high == sets.low).mean()
    covered = (sets.low <= judged.labels) & (judged.labels <= sets.high)
    for row in found["slices"].filter(kind="range").iter_rows(named=True):
        inside = judged.labels == RANGES.words.index(row["slice"])
        assert row["coverage"] == pytest.approx(covered[inside].mean()), row["slice"]
        assert row["coverage_low"] <= row["coverage"] <= row["coverage_high"]
    without = numbers(judged, table, card(thresholds={90: 0.8}), asked)
    assert without["slices"]["coverage"].null_count() == len(without["slices"])
    assert (
        without["slices"]
        .drop("coverage", "coverage_low", "coverage_high")
        .equals(found["slices"].drop("coverage", "coverage_low", "coverage_high"))
    )
    assert without["sets"] is None
    assert "coverage" not in without["figures"]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(0, 10_000), st.sampled_from([{}, {90: 0.5}]))
def test_few_rows_are_judged_as_well(count: int, seed: int, thresholds: dict[int, float]) -> None:
    judged, table = drawn(count, seed)
    found = numbers(judged, table, card(thresholds=thresholds), EvaluateSettings(draws=100))
    assert all(np.isfinite(value) for value in found["figures"].values())
    assert not found["slices"]["enough"].any()


def test_baselines_are_constant_answers_that_are_as_sure_as_they_are_right() -> None:
    judged, _ = drawn(700)
    for found in baselines(judged, RANGES).values():
        assert found["macro_recall"] == pytest.approx(1 / len(RANGES))
        assert found["ece"] == pytest.approx(0)


@pytest.mark.slow
def test_a_whole_data_set_takes_seconds() -> None:
    judged, table = drawn(23_000)
    begin = time.process_time()
    numbers(judged, table, card(thresholds={90: 0.8}, temperature=1.3), EvaluateSettings(draws=10_000))
    assert time.process_time() - begin < 20  # ten seconds of two cores
