"""Every statement of an evaluation holds for the figures beside it, however extreme the model or the rows are."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from test_compute import card

from agepipe.config.stages import LOWER_IS_BETTER, EvaluateSettings
from agepipe.data.records import Rows
from agepipe.evaluation import figures
from agepipe.evaluation.comparison import compare_pair, paired_differences, significance
from agepipe.evaluation.compute import numbers
from agepipe.evaluation.constant import DECISIVE
from agepipe.evaluation.metrics import Predictions, checked
from agepipe.evaluation.result import Champion, Outcome
from agepipe.evaluation.slice_table import SLICE_FIGURES
from agepipe.model.ages import AgeRanges
from agepipe.model.lineage import Overlap
from agepipe.model.records import Model
from agepipe.reports import comparison, sentences
from agepipe.reports.comparison import ModelComparison
from agepipe.reports.model_card import model_card

RANGES = AgeRanges.of(("1-10", "11-20", "21-40", "over40"))
SETTINGS = EvaluateSettings(draws=200)

Ints = np.ndarray


def of(ages: Ints, classes: Ints, years: np.ndarray, sure: float = 0.97) -> Predictions:
    """A model that answers these ranges, all equally confident, and these ages."""
    shares = np.full((len(ages), len(RANGES)), (1 - sure) / (len(RANGES) - 1))
    shares[np.arange(len(ages)), classes] = sure
    return checked(RANGES.classes(ages), shares, ages, years)


def perfect(ages: Ints) -> Predictions:
    return of(ages, RANGES.classes(ages), ages.astype(float))


def constant(ages: Ints) -> Predictions:
    """The best constant guess in every figure."""
    commonest = np.bincount(RANGES.classes(ages)).argmax()
    return of(ages, np.full(len(ages), commonest), np.full(len(ages), np.median(ages)))


def right_ranges_wrong_years(ages: Ints) -> Predictions:
    """The fault that was reported: ranges are mostly right, the error in years is above that of a constant guess."""
    return of(ages, RANGES.classes(ages), np.where(ages < 30, ages + 40.0, ages - 40.0))


def wrong_ranges_right_years(ages: Ints) -> Predictions:
    return of(ages, (RANGES.classes(ages) + 2) % len(RANGES), ages + 0.5)


def always_wrong(ages: Ints) -> Predictions:
    return of(ages, (RANGES.classes(ages) + 2) % len(RANGES), 1e6 - ages)


def balanced(ages: Ints) -> Predictions:
    """As class weights make it: better than a guess in macro recall, worse in accuracy where one range is most."""
    random = np.random.default_rng(4)
    classes = RANGES.classes(ages)
    right = random.random(len(ages)) < 0.55
    return of(ages, np.where(right, classes, random.integers(0, 4, len(ages))), np.full(len(ages), np.median(ages)))


def guessing(ages: Ints) -> Predictions:
    random = np.random.default_rng(5)
    return of(
        ages, random.integers(0, 4, len(ages)), np.full(len(ages), np.median(ages)) + random.normal(0, 1, len(ages))
    )


MODELS = (perfect, constant, right_ranges_wrong_years, wrong_ranges_right_years, always_wrong, balanced, guessing)
ROWS = {
    "many": np.random.default_rng(0).integers(1, 61, 300),
    "one range": np.random.default_rng(1).integers(21, 41, 60),
    "mostly one range": np.append(np.random.default_rng(2).integers(45, 61, 250), np.arange(1, 51)),
    "ten": np.random.default_rng(3).integers(1, 61, 10),
    "one": np.array([30]),
}


def evaluated(judged: Predictions, other: Predictions, groups: Ints | None = None) -> Outcome:
    """All that is found out about these answers, with a champion beside them, without files and drawings."""
    count = len(judged.labels)
    table = pl.DataFrame(
        {
            "index": range(count), "path": [f"{row}.jpg" for row in range(count)], "age": judged.ages.astype(int),
            "digest": [f"{row:064x}" for row in range(count)], "label": judged.labels,
            "group": np.arange(count) if groups is None else groups, "gender": np.arange(count) % 2,
        }
    )  # fmt: skip
    found = card(RANGES, thresholds={90: 0.5}, temperature=1.5, calibrated="validation rows")
    rows = Rows(digest="r" * 64, table=Path("r"), pixels=Path("p"), size=64, count=count, ranges=RANGES, name="rows")
    differing = paired_differences(table["group"].to_numpy(), judged, other, SETTINGS).figures
    return Outcome(
        model=Model(digest="m" * 64, folder=Path("m")), card=found, rows=rows, table=table,
        lineage=pl.DataFrame(schema={"digest": pl.String, "look": pl.Binary, "role": pl.String}),
        overlap=Overlap(np.zeros(count, dtype=bool), 0, 0, {}, ()), settings=SETTINGS, predictions=judged,
        curves=pl.DataFrame(), outside=0, seconds=1.0, notes=(), champion=Champion("c" * 64, differing),
        **numbers(judged, table, found, SETTINGS),
    )  # fmt: skip


class Case(NamedTuple):
    model: Callable[[Ints], Predictions]
    rows: str

    @property
    def outcome(self) -> Outcome:
        ages = ROWS[self.rows]
        return evaluated(self.model(ages), guessing(ages))


CASES = [Case(model, rows) for model in MODELS for rows in ROWS]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.model.__name__}, {case.rows}")
def test_what_is_said_is_true(case: Case) -> None:
    o = case.outcome
    check_constants(o)
    check_verdict(o)
    check_sets(o)
    check_slices(o)
    check_champion(o)
    check_intervals(o)
    text = model_card(o)
    assert sentences.verdict(o) in text
    assert sentences.warning(o) in text
    assert "nan" not in text.lower().replace("finance", "")


def check_constants(o: Outcome) -> None:
    """No constant does better than the guesses that the model is held against."""
    judged = o.predictions
    by_class = [
        {"accuracy": (judged.labels == k).mean(), "within_one": (np.abs(judged.labels - k) <= 1).mean()}
        for k in range(len(RANGES))
    ]
    for name in ("accuracy", "within_one"):
        assert o.constants[name].second == pytest.approx(max(one[name] for one in by_class))
    years = np.unique(np.append(judged.ages, np.median(judged.ages)))
    errors = np.abs(judged.ages[:, None] - years).mean(axis=0)
    assert o.constants["mae"].second == pytest.approx(errors.min())
    assert o.constants["macro_recall"].second == pytest.approx(1 / len(RANGES))
    for name, found in o.constants.items():
        assert found.first == pytest.approx(o.figures[name])
        assert found.low <= found.difference <= found.high


def check_verdict(o: Outcome) -> None:
    warning, verdict = sentences.warning(o), sentences.verdict(o)
    assert len(re.findall(rf"\b{len(o.predictions.labels):,} unseen", verdict)) == 1
    for name in ("accuracy", "within_one"):
        assert figures.figure(o.figures[name], name) in verdict
        assert figures.figure(o.constants[name].second, name) in verdict
    assert f"{o.figures['mae']:.2f} years" in verdict
    better = sentences.compared_with_constant(o, 1)
    for name in DECISIVE:
        value, guess = o.constants[name][:2]
        ahead = value < guess if name in LOWER_IS_BETTER else value > guess
        if name in better:
            assert ahead
        if name in sentences.compared_with_constant(o, -1):
            assert not ahead
            assert value != guess
    assert (warning == "") == (len(better) == len(DECISIVE) and o.groups >= SETTINGS.min_slice)
    assert ("Better than a constant guess" in verdict) == (warning == "")
    if o.groups < SETTINGS.min_slice:
        assert re.findall(r"\d+", warning) == [str(o.groups), str(SETTINGS.min_slice)]
    elif warning:
        assert warning.startswith("The figures disagree" if better else "This model is not better")
        for name in set(DECISIVE) - set(better):
            assert figures.change(o.constants[name], name, 0.95) in warning


def check_sets(o: Outcome) -> None:
    text, share = sentences.prediction_sets(o), o.figures["coverage"]
    low, high = o.intervals["coverage"]
    assert ("above the target" in text) == (low > 0.9)
    assert ("below the target" in text) == (high < 0.9)
    assert low <= share <= high
    assert not (o.groups <= 10 and "above the target" in text)  # ten of ten happen by chance


def check_slices(o: Outcome) -> None:
    text, judged = sentences.worst_slices(o), o.slices.filter("enough")
    worse = {name: sentences.behind(judged, name, 0.05) for name in SLICE_FIGURES}
    for name, table in worse.items():
        for row in table.iter_rows(named=True):
            rest = o.predictions.right if name == "accuracy" else -o.predictions.errors
            inside = (o.table["gender"] == ("male", "female").index(row["slice"])).to_numpy() if (
                row["kind"] == "gender") else o.predictions.labels == RANGES.words.index(row["slice"])  # fmt: skip
            assert rest[inside].mean() < rest[~inside].mean()
        for row in table.head(sentences.MAX_NAMED).iter_rows(named=True):
            assert f"{row['kind']} {row['slice']} ({figures.gap(row[f'{name}_gap'], name)}" in text
    count = len({row[:2] for table in worse.values() for row in table.iter_rows()})
    assert ("significantly worse than the rest, in" in text) == (count > 0)
    if len(judged):
        assert text.startswith(f"{len(judged)} of {len(o.slices)} ")


def check_champion(o: Outcome) -> None:
    text = sentences.champion(o)
    assert o.champion is not None
    for name in ("accuracy", "mae"):
        found = o.champion.differences[name]
        if o.groups < SETTINGS.min_slice:
            assert not sentences.differs(o, found, name)
            assert "better" not in text
        elif significance(found, name):
            ahead = found.first < found.second if name in LOWER_IS_BETTER else found.first > found.second
            assert f"{'better' if ahead else 'worse'} in {figures.WORDS[name]}" in text
        else:
            assert f"no significant difference in {figures.WORDS[name]}" in text


def check_intervals(o: Outcome) -> None:
    """No interval of a share is without width: of few photographs all may be right by chance."""
    for name in ("accuracy", "within_one", "coverage", "single", "within_5_years"):
        low, high = o.intervals[name]
        assert low <= o.figures[name] <= high
        assert high > low


def test_the_reported_model_is_not_said_to_be_better_than_a_constant_guess() -> None:
    o = Case(right_ranges_wrong_years, "many").outcome
    assert o.figures["mae"] > o.constants["mae"].second
    assert (sentences.compared_with_constant(o, 1), sentences.compared_with_constant(o, -1)) == (
        ["accuracy", "macro_recall"],
        ["mae"],
    )
    assert figures.gap(o.constants["mae"].difference, "mae") in sentences.warning(o)


def test_a_slice_that_is_worse_in_years_alone_is_named() -> None:
    ages = ROWS["many"]
    judged = perfect(ages)
    o = evaluated(judged._replace(years=judged.years + 4.0 * (np.arange(len(ages)) % 2)), judged)
    assert sentences.behind(o.slices, "accuracy", 0.05).is_empty()
    assert sentences.behind(o.slices, "mae", 0.05)["slice"].to_list() == ["female"]
    assert "in age error: gender female (+4.00 years)" in sentences.worst_slices(o)
    assert "gender: female" in model_card(o)


def test_a_slice_that_is_always_wrong_beside_a_rest_that_is_always_right_is_worse() -> None:
    ages = ROWS["many"]
    women = np.arange(len(ages)) % 2 == 1
    classes = RANGES.classes(ages)
    o = evaluated(of(ages, np.where(women, (classes + 1) % 4, classes), ages.astype(float)), perfect(ages))
    assert sentences.behind(o.slices, "accuracy", 0.05)["slice"].to_list()[0] == "female"


def test_copies_do_not_make_few_photographs_enough() -> None:
    ages = np.repeat(ROWS["ten"], 40)
    o = evaluated(perfect(ages), guessing(ages), np.repeat(np.arange(10), 40))
    assert sentences.warning(o).startswith("10 ")
    assert not sentences.differs(o, o.champion.differences["mae"], "mae")  # type: ignore[union-attr]
    assert o.intervals["accuracy"][0] == pytest.approx(0.025 ** (1 / 10))
    compared = contrasted(perfect(ages), guessing(ages), np.repeat(np.arange(10), 40))
    assert "10 different photographs" in comparison.verdicts(compared)[0]


def contrasted(first: Predictions, second: Predictions, groups: Ints | None = None) -> ModelComparison:
    count = len(first.labels)
    named = np.arange(count) if groups is None else groups
    table = pl.DataFrame({"group": named, "label": first.labels, "gender": np.arange(count) % 2})
    return ModelComparison(
        digest="d" * 64, titles=("old", "new"), models=("o" * 64, "n" * 64), name="rows", rows="r" * 64, count=count,
        photographs=len(np.unique(named)), excluded=0, settings=SETTINGS, notes=(),
        against=(compare_pair(table, first, second, RANGES.words, SETTINGS),),
    )  # fmt: skip


@pytest.mark.parametrize("rows", ["many", "one range", "ten"])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_what_a_comparison_says_is_true(model: Callable[[Ints], Predictions], rows: str) -> None:
    ages = ROWS[rows]
    found = contrasted(model(ages), guessing(ages))
    (one,), text = found.against, comparison.verdicts(found)[0]
    for name, change in one.figures.items():
        told = comparison.significant(found, change, name)
        assert (f"{figures.WORDS[name]} ({figures.gap(change.difference, name)}" in text) == (told != 0)
        if told:
            ahead = change.first < change.second if name in LOWER_IS_BETTER else change.first > change.second
            assert ahead is (told > 0)
    assert ("No significant difference" in text) == (
        len(ages) >= 30 and not any(significance(change, name) for name, change in one.figures.items())
    )
    said = comparison.by_slice("new", one)
    judged = [part for part in one.slices if part.changes]
    for word, sign in (("worse", -1), ("better", 1)):
        told = [part for part in judged if sign in {significance(c, n) for n, c in part.changes.items()}]
        assert (f"significantly {word} in {len(told)} of {len(judged)} slices" in said) == bool(told)
    assert (str(len(judged)) in said) == bool(judged)
