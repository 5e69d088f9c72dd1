"""Slices against the rest."""

import numpy as np
import polars as pl
import pytest

from agepipe.config.stages import EvaluateSettings
from agepipe.evaluation.bootstrap import drawn
from agepipe.evaluation.metrics import Predictions, checked
from agepipe.evaluation.slice_table import SCHEMA, slice_sums, slice_table
from agepipe.evaluation.slices import Slice

DRAWS = EvaluateSettings(draws=1000)


def rows(right: np.ndarray, seed: int = 0) -> Predictions:
    """Rows of two classes that are answered right where asked; ages are off by 2 years when right, else by 8."""
    labels = np.random.default_rng(seed).integers(0, 2, len(right))
    said = np.where(right, labels, 1 - labels)
    shares = np.where(np.arange(2) == said[:, None], 0.8, 0.2)
    return checked(labels, shares, np.full(len(right), 40), np.where(right, 42.0, 48.0))


def table(judged: Predictions, found: list[Slice], groups: np.ndarray | None = None) -> pl.DataFrame:
    groups = np.arange(len(judged.labels)) if groups is None else groups
    sums = slice_sums(groups, found, judged)
    return slice_table(groups, found, sums, drawn(sums, DRAWS.draws, 1), DRAWS)


def test_a_planted_weakness_comes_first_and_is_real() -> None:
    random = np.random.default_rng(2)
    weak = random.random(1200) < 0.25
    judged = rows(random.random(1200) < np.where(weak, 0.4, 0.7))
    others = [Slice("race", str(k), random.random(1200) < 0.3) for k in range(15)]
    found = table(judged, [*others, Slice("gender", "weak", weak)])
    first = found.row(0, named=True)
    assert first["slice"] == "weak"
    right = judged.right
    assert first["accuracy"] == pytest.approx(right[weak].mean())
    assert first["accuracy_gap"] == pytest.approx(right[weak].mean() - right[~weak].mean())
    assert first["mae_gap"] == pytest.approx(judged.errors[weak].mean() - judged.errors[~weak].mean())
    assert first["accuracy_low"] < first["accuracy"] < first["accuracy_high"]
    assert first["accuracy_gap_low"] < first["accuracy_gap"] < first["accuracy_gap_high"] < 0
    assert first["accuracy_p"] < 1e-6
    assert found["accuracy_gap"].is_sorted()


def test_looking_at_many_slices_finds_nothing_where_nothing_is() -> None:
    found_any = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        judged = rows(random.random(400) < 0.6, seed)
        found = table(judged, [Slice("race", str(k), random.random(400) < 0.4) for k in range(20)])
        found_any += bool((found["accuracy_p"] < 0.05).any())
    assert found_any <= 8  # uncorrected, twenty slices would give one in nearly two of three


def test_few_photographs_are_not_judged_and_copies_do_not_make_them_more() -> None:
    judged = rows(np.random.default_rng(0).random(400) < 0.6)
    copied = np.arange(400) < 60
    groups = np.where(copied, np.arange(400) // 3, np.arange(400))
    found = table(judged, [Slice("race", "copied", copied), Slice("race", "nearly all", ~copied)], groups)
    assert found["photographs"].sort().to_list() == [20, 340]
    assert found["enough"].to_list() == [False, False]  # the rest of `nearly all` are the twenty
    assert found["accuracy_gap"].null_count() == found["mae_p"].null_count() == 2
    assert found["accuracy"].null_count() == 0


def test_a_slice_of_one_row_and_no_slices_give_tables() -> None:
    judged = rows(np.random.default_rng(0).random(50) < 0.6)
    one = table(judged, [Slice("race", "one", np.arange(50) == 3)])
    assert one["accuracy"].item() in (0.0, 1.0)
    assert table(judged, []).schema == pl.Schema(SCHEMA)


def test_a_slice_that_is_always_right_has_no_spread_to_judge_by() -> None:
    found = table(rows(np.ones(200, dtype=bool)), [Slice("race", "half", np.arange(200) < 100)])
    assert found["accuracy_p"].item() == 1
    assert found["accuracy_gap"].item() == 0
