"""Two models on the same rows: figures, McNemar's test and slices; the same in report, comparison page and gate."""

import time
from pathlib import Path
from typing import get_args

import numpy as np
import polars as pl
import pytest
from bundles import make_bundle, make_rows
from folders import evaluated, fresh
from scipy.stats import binomtest

from agepipe.config.runtime import Runtime
from agepipe.config.stages import EvaluateSettings, Metric, ReleaseSettings
from agepipe.core.errors import DataError
from agepipe.evaluation import gate
from agepipe.evaluation.bootstrap import bootstrap
from agepipe.evaluation.comparison import COMPARED, compare_pair, mcnemar, paired_differences, significance
from agepipe.evaluation.evaluate import compute_outcome, open_subject
from agepipe.evaluation.metrics import FIGURES, Predictions, figures
from agepipe.reports import comparison

CLASSES = 4
NAMES = ("1-10", "11-20", "21-40", "over40")


def answers(random: np.random.Generator, labels: np.ndarray, right: float) -> Predictions:
    """A model that is right with this probability, and otherwise anywhere."""
    said = np.where(random.random(len(labels)) < right, labels, random.integers(0, CLASSES, len(labels)))
    shares = np.full((len(labels), CLASSES), 0.1)
    shares[np.arange(len(labels)), said] = 0.7
    ages = labels * 10.0 + 5
    return Predictions(labels.astype(np.int64), shares, ages, said * 10.0 + 5 + random.normal(0, 3, len(labels)))


def rows(labels: np.ndarray, groups: np.ndarray | None = None) -> pl.DataFrame:
    count = len(labels)
    named = np.arange(count) if groups is None else groups
    return pl.DataFrame(
        {"group": named.astype(str), "label": labels, "gender": np.arange(count) % 2, "race": np.arange(count) % 5}
    )


def test_each_figure_is_that_of_the_evaluation_and_the_sign_says_who_is_better() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, 800)
    good, poor = answers(random, labels, 0.8), answers(random, labels, 0.4)
    found = compare_pair(rows(labels), good, poor, NAMES, EvaluateSettings(draws=500))
    ours, theirs = figures(good), figures(poor)
    assert tuple(found.figures) == COMPARED
    for name, change in found.figures.items():
        assert (change.first, change.second) == pytest.approx((ours[name], theirs[name]))
        assert change.difference == pytest.approx(ours[name] - theirs[name])
        assert change.low < change.difference < change.high
        assert significance(change, name) == 1, name
    assert all(significance(change._replace(low=-change.high, high=-change.low), name) == -1
               for name, change in found.figures.items())  # fmt: skip
    female = next(one for one in found.slices if one.name == "female")
    inside = np.arange(800) % 2 == 1
    assert female.rows == inside.sum()
    assert female.changes["accuracy"].first == pytest.approx((good.predicted == labels)[inside].mean())
    assert female.changes["mae"].second == pytest.approx(np.abs(poor.ages - poor.years)[inside].mean())


def test_the_share_of_draws_counts_every_gain_however_small() -> None:
    """A slice of which each row is one year or one right answer better is better in each draw, and not in a half."""
    labels = np.arange(400) % CLASSES
    table = rows(labels)
    poor = answers(np.random.default_rng(0), labels, 0.5)
    nearer = poor._replace(years=poor.ages + np.sign(poor.years - poor.ages) * np.maximum(poor.errors - 0.2, 0))
    for first, second, share in ((nearer, poor, 1.0), (poor, nearer, 0.0), (poor, poor, 0.0)):
        found = compare_pair(table, first, second, NAMES, EvaluateSettings(draws=100))
        assert found.figures["mae"].share_better == share
        changes = [one.changes for one in found.slices if one.kind == "gender"]
        assert [one["mae"].share_better for one in changes] == [share, share]
        assert [one["accuracy"].share_better for one in changes] == [0.0, 0.0]
    good = answers(np.random.default_rng(0), labels, 0.9)
    found = compare_pair(table, good, poor, NAMES, EvaluateSettings(draws=100))
    assert all(one.changes["accuracy"].share_better == 1.0 for one in found.slices if one.kind == "gender")


def test_models_that_are_equally_good_are_told_apart_no_more_often_than_was_allowed() -> None:
    """Over figures and over slices: with every difference at 95 % by itself it would be a quarter of the time."""
    random = np.random.default_rng(1)
    settings = EvaluateSettings(draws=400)
    told = {"figures": 0, "slices": 0}
    trials = 200
    for _ in range(trials):
        labels = random.integers(0, CLASSES, 400)
        found = compare_pair(rows(labels), answers(random, labels, 0.6), answers(random, labels, 0.6), NAMES, settings)
        told["figures"] += any(significance(change, name) for name, change in found.figures.items())
        told["slices"] += any(significance(c, name) for one in found.slices for name, c in one.changes.items())
    for count in told.values():
        assert binomtest(count, trials, 0.05, alternative="greater").pvalue > 0.001


def test_a_model_is_not_better_than_itself() -> None:
    random = np.random.default_rng(7)
    same = answers(random, random.integers(0, CLASSES, 80), 0.5)
    for change in paired_differences(np.arange(80), same, same, EvaluateSettings()).figures.values():
        assert change[2:] == pytest.approx((0, 0, 0, 0), abs=1e-12)


def test_pairing_sees_what_two_intervals_cannot() -> None:
    random = np.random.default_rng(8)
    labels = random.integers(0, CLASSES, 400)
    second = answers(random, labels, 0.5)
    wrong = np.flatnonzero(second.predicted != labels)[:12]
    better = second.probabilities.copy()
    better[wrong] = 0.1
    better[wrong, labels[wrong]] = 0.7
    first = second._replace(probabilities=better)
    one, two = (bootstrap(np.arange(400), r, wanted=("accuracy",))["accuracy"] for r in (second, first))
    assert one[1] > two[0]
    assert paired_differences(np.arange(400), first, second, EvaluateSettings()).figures["accuracy"].low > 0


def test_a_larger_family_widens_an_interval_and_changes_nothing_else() -> None:
    random = np.random.default_rng(9)
    labels = random.integers(0, CLASSES, 300)
    pair = answers(random, labels, 0.6), answers(random, labels, 0.5)
    family = paired_differences(np.arange(300), *pair, EvaluateSettings()).figures
    assert tuple(family) == FIGURES
    for name, wide in family.items():
        narrow = paired_differences(np.arange(300), *pair, EvaluateSettings(), figures=(name,)).figures[name]
        assert (narrow[:3], narrow.share_better) == (wide[:3], wide.share_better)
        assert wide.low < narrow.low < narrow.difference < narrow.high < wide.high


def test_what_cannot_be_compared_is_refused() -> None:
    random = np.random.default_rng(10)
    twenty, ten = (answers(random, random.integers(0, CLASSES, count), 0.5) for count in (20, 10))
    with pytest.raises(DataError, match="20 and 10"):
        paired_differences(np.arange(20), twenty, ten, EvaluateSettings())
    with pytest.raises(DataError, match="'speed'"):
        paired_differences(np.arange(20), twenty, twenty, EvaluateSettings(), figures=("speed",))
    with pytest.raises(DataError, match="groups: shape"):
        paired_differences(np.arange(19), twenty, twenty, EvaluateSettings())


@pytest.mark.parametrize("sharpness", [22.0, 5.0])
def test_report_page_and_gate_agree_on_two_models(tmp_path: Path, runtime: Runtime, sharpness: float) -> None:
    """Report and page show one family of intervals; the gate tests one figure, so its interval lies inside theirs."""
    settings, watched = EvaluateSettings(draws=400), ("gender", "race")
    rows = make_rows(tmp_path / "rows", 300, noise=0.05, groups=[str(at // 2) for at in range(300)])
    model, champion = make_bundle(tmp_path / "model", sharpness=sharpness), make_bundle(tmp_path / "old", sharpness=20)
    outcome = compute_outcome(
        open_subject(model, rows), settings, runtime, against=evaluated(champion, rows, settings, runtime)
    )
    done = comparison.compare((champion, model), ("old", "new"), rows, settings, fresh(tmp_path), runtime)
    (page,) = comparison.read(done).against
    assert outcome.champion is not None
    report = outcome.champion.differences
    assert (tuple(report), tuple(page.figures)) == (FIGURES, COMPARED)
    for name, change in page.figures.items():
        assert report[name] == pytest.approx(change, rel=1e-5, abs=1e-6), name
        assert significance(report[name], name) == significance(change, name), name
    for metric in get_args(Metric):
        release = ReleaseSettings(metric=metric, watch=watched)
        decided, shown = gate.compare(model, champion, rows, release, settings, runtime), report[metric]
        assert (decided.candidate, decided.champion, decided.difference, decided.share_better) == pytest.approx(
            (*shown[:3], shown.share_better), rel=1e-5, abs=1e-6
        )
        assert decided.low is not None and decided.high is not None
        assert decided.low + decided.high == pytest.approx(shown.low + shown.high, rel=1e-5, abs=1e-6)
        assert shown.low <= decided.low <= decided.high <= shown.high
        assert decided.promote or significance(shown, metric) < 1, metric
        slices = {
            (one.kind, one.name): one.changes["mae"] for one in page.slices if one.kind in watched and one.changes
        }
        assert {(one.kind, one.name) for one in decided.slices} == set(slices)
        for one in decided.slices:
            inner, outer = one.changes["mae"], slices[one.kind, one.name]
            assert (inner[:3], inner.share_better) == (outer[:3], outer.share_better)
            assert outer.low <= inner.low <= inner.high <= outer.high


def test_mcnemar_is_the_binomial_test_on_rows_that_one_alone_has_right() -> None:
    random = np.random.default_rng(2)
    labels = random.integers(0, CLASSES, 300)
    first, second = answers(random, labels, 0.7), answers(random, labels, 0.5)
    a, b = first.predicted == labels, second.predicted == labels
    found = mcnemar(np.arange(300), first, second)
    assert (found.first_only, found.second_only, found.both) == ((a & ~b).sum(), (b & ~a).sum(), (a & b).sum())
    assert found.p == binomtest(int((a & ~b).sum()), int((a ^ b).sum())).pvalue
    same = mcnemar(np.arange(300), first, first)
    assert (same.first_only, same.second_only, same.p) == (0, 0, 1.0)


def test_copies_are_one_observation() -> None:
    random = np.random.default_rng(3)
    labels = random.integers(0, CLASSES, 200)
    first, second = answers(random, labels, 0.65), answers(random, labels, 0.5)
    once, settings = compare_pair(rows(labels), first, second, NAMES, EvaluateSettings()), EvaluateSettings()
    five = [Predictions(*(np.repeat(part, 5, axis=0) for part in one[:4])) for one in (first, second)]
    table = rows(np.repeat(labels, 5), np.repeat(np.arange(200), 5))
    copied = compare_pair(table, *five, NAMES, settings)
    assert copied.exact == once.exact
    for name, change in copied.figures.items():
        assert change.high - change.low == pytest.approx(once.figures[name].high - once.figures[name].low, rel=0.1)
    alike = {(one.kind, one.name): one for one in copied.slices if one.kind == "range"}
    for one in (part for part in once.slices if part.kind == "range" and part.changes):
        other = alike[one.kind, one.name]
        assert other.photographs == one.photographs
        for name, change in one.changes.items():
            five_times = other.changes[name].high - other.changes[name].low
            assert five_times == pytest.approx(change.high - change.low, rel=0.1)


def test_small_slices_and_other_ranges_are_compared_by_years_alone() -> None:
    random = np.random.default_rng(4)
    labels = random.integers(0, CLASSES, 100)
    found = compare_pair(rows(labels), answers(random, labels, 0.6), answers(random, labels, 0.6), NAMES,
                   EvaluateSettings(draws=100), same_ranges=False)  # fmt: skip
    assert (tuple(found.figures), found.exact) == (("mae",), None)
    assert all(set(one.changes) == ({"mae"} if one.photographs >= 30 else set()) for one in found.slices)
    assert {one.name for one in found.slices if not one.changes} >= {"White", "Black", "Asian"}


@pytest.mark.slow
def test_twenty_three_thousand_rows_take_seconds() -> None:
    random = np.random.default_rng(5)
    labels = random.integers(0, CLASSES, 23_000)
    start = time.process_time()
    compare_pair(rows(labels), answers(random, labels, 0.6), answers(random, labels, 0.6), NAMES,
           EvaluateSettings(draws=10_000))  # fmt: skip
    assert time.process_time() - start < 40  # both cores together
