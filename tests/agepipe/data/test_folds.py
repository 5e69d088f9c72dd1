"""Folds of the search and the validation rows of the last training: groups stay whole, and shares are even."""

from random import Random

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_split import RANGES, SIZES, rows_of, sides

from agepipe.core.errors import ConfigError
from agepipe.data.stratify import folds, holdout


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5), st.integers(0, 1000), st.data(), st.randoms(use_true_random=False))
def test_folds_ignore_order_keep_groups_whole_and_are_balanced(
    count: int, seed: int, data: st.DataObject, random: Random
) -> None:
    sizes = [
        (label, data.draw(st.integers(1, 4)))
        for label in data.draw(st.lists(st.integers(0, 13), min_size=1, max_size=5, unique=True))
        for _ in range(data.draw(st.integers(count, 20)))
    ]
    frame = rows_of(sizes)
    found = folds(frame, count, seed)
    order = random.sample(range(len(frame)), k=len(frame))
    assert (folds(frame[order], count, seed) == found[order]).all()
    placed = frame.with_columns(pl.Series("fold", found))
    assert placed.group_by("group").agg(pl.col("fold").n_unique())["fold"].max() == 1
    for (_,), part in placed.group_by("label"):
        rows = np.bincount(part["fold"], minlength=count)
        assert rows.min() > 0
        assert rows.max() - rows.min() <= part.group_by("group").len()["len"].max()


def test_folds_are_even_over_all_ranges() -> None:
    frame = rows_of([(label, 1) for label in range(14) for _ in range(7)])
    assert np.bincount(folds(frame, 3, 0)).tolist() in ([33, 33, 32], [33, 32, 33], [32, 33, 33])
    assert (folds(frame, 3, 0) != folds(frame, 3, 1)).any()


def test_large_groups_are_placed_first_so_that_small_ones_even_the_folds() -> None:
    for seed in range(5):
        frame = rows_of([(0, 1)] * 6 + [(0, 6)], str(seed))
        assert np.bincount(folds(frame, 2, seed)).tolist() == [6, 6]


def test_too_many_folds_name_the_range_and_the_most_there_can_be() -> None:
    frame = rows_of([(0, 1)] * 30 + [(12, 2)] * 4)
    with pytest.raises(ConfigError) as error:
        folds(frame, 10, 0, RANGES)
    assert str(error.value) == ("search.folds is 10, but range '71-80' has 4 groups of photographs; use at most 4.")
    assert len(set(folds(frame, 4, 0, RANGES))) == 4
    with pytest.raises(ConfigError, match="range '12'"):
        folds(frame, 5, 0)


def test_a_range_with_a_single_group_lies_in_one_fold() -> None:
    found = folds(rows_of([(0, 1)] * 9 + [(12, 3)]), 3, 0)
    assert len(set(found[-3:])) == 1
    with pytest.raises(ConfigError, match=r"search\.folds is 3, but there are 2 groups"):
        folds(rows_of([(0, 1), (1, 1)]), 3, 0)


@settings(max_examples=40, deadline=None)
@given(SIZES, st.floats(0.05, 0.8), st.integers(0, 1000), st.randoms(use_true_random=False))
def test_holdout_ignores_order_and_keeps_groups_whole(
    sizes: list[tuple[int, int]], share: float, seed: int, random: Random
) -> None:
    frame = rows_of(sizes)
    mask = holdout(frame, share, seed)
    order = random.sample(range(len(frame)), k=len(frame))
    assert mask.dtype == np.bool_
    assert (holdout(frame[order], share, seed) == mask[order]).all()
    assert not set(frame.filter(mask)["group"]) & set(frame.filter(~mask)["group"])
    assert 0 < mask.sum() < len(frame)


def test_holdout_and_test_side_are_drawn_apart_where_they_share_a_seed() -> None:
    frame = rows_of([(0, 1)] * 300)
    test = np.array([side == "test" for side in sides(frame, 0.2, seed=9).values()])
    mask = holdout(frame, 0.2, 9)
    assert mask.sum() == test.sum() == 60
    assert (mask & test).sum() < 40


def test_holdout_with_one_side_empty_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"final\.validation is 0\.1, but 3 rows in 1 groups"):
        holdout(rows_of([(0, 3)]), 0.1, 0)
