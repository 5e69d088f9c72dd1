"""Law 1: one class order, and ranges that leave no doubt about any age."""

import itertools
import random

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agepipe.core.errors import ConfigError
from agepipe.data.labels import class_column
from agepipe.model.ages import OLDEST, UTKFACE_RANGES, AgeRange, AgeRanges

BORDERS = st.lists(st.integers(0, 110), min_size=3, max_size=20, unique=True).map(sorted)


def of_borders(borders: list[int], is_open: bool) -> AgeRanges:
    """Ranges that start at the borders; the last border ends the last range, or the range is open."""
    closed = [AgeRange(low=low, high=after - 1) for low, after in itertools.pairwise(borders)]
    last = closed[-1]
    return AgeRanges(ranges=(*closed[:-1], last.model_copy(update={"high": None}) if is_open else last))


def test_the_order_of_the_ranges_is_the_order_of_the_classes() -> None:
    ranges = AgeRanges.of("utkface")
    assert ranges.names == UTKFACE_RANGES
    assert len(ranges) == 14
    assert [ranges.class_of(age) for age in (1, 2, 3, 10, 11, 26, 80, 81, 116)] == [0, 0, 1, 2, 3, 6, 12, 13, 13]


def test_names_sorted_as_text_are_refused() -> None:
    with pytest.raises(ConfigError, match="the ages 3 to 10 lie between '1-2' and '11-14'"):
        AgeRanges.of(sorted(UTKFACE_RANGES))


def test_shuffled_ranges_are_refused() -> None:
    for seed in range(20):
        shuffled = random.Random(seed).sample(UTKFACE_RANGES, k=14)
        if shuffled != list(UTKFACE_RANGES):
            with pytest.raises(ConfigError):
                AgeRanges.of(shuffled)


@given(BORDERS, st.booleans(), st.integers(0, 120))
def test_every_way_to_a_class_gives_the_same_one(borders: list[int], is_open: bool, age: int) -> None:
    ranges = of_borders(borders, is_open)
    wanted = [
        at for at, item in enumerate(ranges.ranges) if item.low <= age and (item.high is None or age <= item.high)
    ]
    label = pl.DataFrame({"age": [age]}, schema={"age": pl.UInt8}).select(class_column(ranges)).to_series()
    assert ranges.class_of(age) == label[0] == (wanted[0] if wanted else None)
    assert ranges.classes(np.array([age]))[0] == (wanted[0] if wanted else -1)
    assert label.dtype == pl.Int16


def test_the_first_and_the_last_year_of_closed_ranges_have_a_class() -> None:
    ranges = AgeRanges.of(("3-10", "11-20"))
    wanted = [None] * 3 + [0] * 8 + [1] * 10 + [None] * 4
    ages = pl.DataFrame({"age": range(25)})
    assert ages.select(class_column(ranges).alias("label"))["label"].to_list() == wanted
    assert ranges.classes(ages["age"].to_numpy()).tolist() == [-1 if one is None else one for one in wanted]


@given(BORDERS, st.booleans())
def test_names_read_back_as_the_same_ranges(borders: list[int], is_open: bool) -> None:
    ranges = of_borders(borders, is_open)
    assert AgeRanges.of(ranges.names) == ranges
    assert AgeRanges.model_validate_json(ranges.model_dump_json()) == ranges
    assert (np.diff(ranges.lows) > 0).all()
    assert (np.diff(ranges.mid_ages) > 0).all()


def test_an_age_that_is_missing_has_no_class() -> None:
    table = pl.DataFrame({"age": [None, 5]}, schema={"age": pl.UInt8})
    assert table.select(class_column(AgeRanges.of("utkface")).alias("label"))["label"].to_list() == [None, 1]


def test_single_years_are_ranges_of_one_year() -> None:
    ranges = AgeRanges.of("years")
    assert len(ranges) == OLDEST
    assert ranges.names[0] == "1"
    assert ranges.names[-1] == "over115"
    assert [ranges.class_of(age) for age in (0, 1, 26, 116, 120)] == [None, 0, 25, 115, 115]


@pytest.mark.parametrize(
    ("text", "low", "high", "name"),
    [
        ("3-5", 3, 5, "3-5"),
        (" 3 - 5 ", 3, 5, "3-5"),
        ("7", 7, 7, "7"),
        ("7-7", 7, 7, "7"),
        ("over80", 81, None, "over80"),
        ("over 80", 81, None, "over80"),
        ("81+", 81, None, "over80"),
    ],
)
def test_a_range_is_read_as_it_is_written(text: str, low: int, high: int | None, name: str) -> None:
    found = AgeRange.parse(text)
    assert (found.low, found.high, found.name) == (low, high, name)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("1-5",), "1 given, at least 2"),
        ((), "0 given, at least 2"),
        (("5-3", "6-9"), "'5-3' is empty"),
        (("1-5", "5-9"), "'1-5' and '5-9' overlap"),
        (("over5", "7-9"), "'over5' and '7-9' overlap"),
        (("1-5", "8-9"), "the ages 6 to 7 lie between '1-5' and '8-9'"),
        (("6-9", "1-5"), "'1-5' comes after '6-9'; list the youngest first"),
        (("1-5", "six"), "'six' is not a range"),
        (("1-5", "-6-9"), "'-6-9' is not a range"),
    ],
)
def test_ranges_that_leave_a_doubt_are_refused_by_name(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AgeRanges.of(names)


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(ConfigError, match="'decades' is not known"):
        AgeRanges.of("decades")  # type: ignore[arg-type]


def test_the_mid_age_of_a_range_is_the_middle_of_its_years() -> None:
    ranges = AgeRanges.of("utkface")
    assert ranges.mid_ages[[0, 1, 13]].tolist() == [1.5, 4.0, 85.5]
    assert AgeRanges.of("years").mid_ages[-1] == 116


def test_neighbouring_classes_span_years() -> None:
    ranges = AgeRanges.of("utkface")
    assert [ranges.span(7, 8), ranges.span(4, 4), ranges.span(7, 13)] == [(28, 40), (15, 17), (28, None)]
    assert [ranges.span_words(7, 8), ranges.span_words(7, 13)] == ["28 to 40", "over 27"]
    assert [ranges.span_words(at, at) for at in range(14)] == list(ranges.words)
    years = AgeRanges.of("years")
    assert (years.span(6, 6), years.span_words(6, 6), years.span_words(6, 8)) == ((7, 7), "7", "7 to 9")
