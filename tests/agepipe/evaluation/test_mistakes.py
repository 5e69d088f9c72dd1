"""The most confident mistakes, and labels worth checking."""

import io

import numpy as np
import polars as pl
import pytest

from agepipe.evaluation.metrics import Predictions, checked
from agepipe.evaluation.mistakes import confident_mistakes, corrected, label_errors, p_values, smallest
from agepipe.model.ages import AgeRanges
from agepipe.model.decoding import Decoding, decide

RANGES = AgeRanges.of("utkface")


def answers(
    skill: float, wrong: int = 0, count: int = 1000, seed: int = 0, calibrated: bool = True
) -> tuple[Predictions, pl.DataFrame, np.ndarray]:
    """Answers of a model that is right in about `skill` of the rows, of which the first `wrong` have a false label.

    What the model sees is the true range, blurred by a few ranges in some rows and hardly at all in others, as faces
    are harder or easier to read. Uncalibrated, it is as confident in all rows as in the easiest.
    """
    random = np.random.default_rng(seed)
    classes = np.arange(len(RANGES))
    true = random.integers(0, len(RANGES), count)
    blur = random.uniform(0.25, 2 * (1.2 - skill) / skill, count)
    seen = true + random.normal(0, blur)
    width = blur if calibrated else np.full(count, 0.3)
    logits = -((seen[:, None] - classes) ** 2) / (2 * width[:, None] ** 2)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    labels = true.copy()
    labels[:wrong] = (true[:wrong] + random.integers(3, 11, wrong)) % len(RANGES)
    ages = RANGES.mid_ages[labels].round()
    years = shares @ RANGES.mid_ages
    paths = [f"{k}.jpg" for k in range(count)]
    table = pl.DataFrame({"index": range(count), "path": paths, "digest": paths, "age": ages.astype(int)})
    return checked(labels, shares, ages, years), table, np.arange(wrong)


@pytest.mark.parametrize(("skill", "recall"), [(0.2, 0.0), (0.4, 0.2), (0.6, 0.6), (0.95, 0.9)])
@pytest.mark.parametrize("wrong", [20, 50, 80])
def test_nearly_all_that_is_listed_was_planted(skill: float, recall: float, wrong: int) -> None:
    judged, table, planted = answers(skill, wrong)
    found = set(label_errors(table, judged, RANGES)["index"])
    hits = len(found & set(planted.tolist()))
    assert hits >= 0.9 * len(found)
    assert hits >= recall * wrong


@pytest.mark.parametrize("wrong", [50, 80])
def test_half_or_more_was_planted_where_the_model_is_too_confident(wrong: int) -> None:
    for skill in (0.4, 0.6, 0.95):
        judged, table, planted = answers(skill, wrong, calibrated=False)
        found = set(label_errors(table, judged, RANGES)["index"])
        assert len(found & set(planted.tolist())) >= 0.5 * len(found)


@pytest.mark.parametrize(("calibrated", "most"), [(True, 1), (False, 20)])
@pytest.mark.parametrize("skill", [0.2, 0.4, 0.6, 0.8, 0.95])
def test_few_labels_are_listed_where_all_are_right(skill: float, calibrated: bool, most: int) -> None:
    judged, table, _ = answers(skill, calibrated=calibrated)
    assert len(label_errors(table, judged, RANGES)) <= most  # of a thousand


def test_a_model_that_is_confidently_wrong_lists_nothing() -> None:
    judged, table, _ = answers(0.2, wrong=100, calibrated=False)
    assert np.median(judged.confidence) > 0.9
    assert label_errors(table, judged, RANGES).is_empty()


def test_the_least_probable_label_comes_first_and_is_further_off_than_the_model_errs() -> None:
    judged, table, _ = answers(0.9, wrong=40)
    found = label_errors(table, judged, RANGES)
    assert found["probability given"].is_sorted()
    assert found["years apart"].min() > judged.errors.mean()


def test_a_spreadsheet_takes_no_range_for_a_date() -> None:
    judged, table, _ = answers(0.95, wrong=40)
    found = label_errors(table, judged, RANGES)
    text = found.drop("index").write_csv()
    assert len(found)
    assert set(found["range given"]) | set(found["range suggested"]) <= {*RANGES.words}
    assert not any(name in text for name in ("1-2", "3-5", "6-10"))
    read = pl.read_csv(io.StringIO(text), try_parse_dates=True)
    assert read["range suggested"].dtype == pl.String


@pytest.mark.parametrize("decoding", ["likeliest", "median"])
def test_the_age_beside_a_suggested_range_lies_in_it(decoding: Decoding) -> None:
    labels = np.zeros(40, dtype=np.int64)
    shares = np.zeros((40, len(RANGES)))
    shares[:, 0] = 1.0
    shares[0, [0, 5, 6, 9]] = 0.0, 0.3, 0.3, 0.4  # the median is class 6, the likeliest is class 9
    years = RANGES.within(decide(shares, decoding), shares @ RANGES.mid_ages)
    table = pl.DataFrame({"index": range(40), "path": "a", "digest": "a", "age": 1})
    found = label_errors(table, checked(labels, shares, np.ones(40), years, decoding), RANGES)
    assert found["range suggested"].to_list() == [RANGES.words[9]]
    assert RANGES.classes(found["age predicted"].to_numpy()).tolist() == [9]


def test_a_p_value_is_the_probability_of_a_label_at_most_as_probable() -> None:
    shares = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.4, 0.2, 0.4]])
    assert p_values(np.array([0, 1, 2, 0]), shares) == pytest.approx([1.0, 0.5, 0.2, 1.0])


@pytest.mark.parametrize("power", [1.0, 2.0, 10.0])
def test_p_values_that_are_too_small_are_corrected_by_their_quantiles(power: float) -> None:
    even = np.random.default_rng(0).random(4000)
    assert np.quantile(corrected(even**power), [0.1, 0.5]) == pytest.approx([0.1, 0.5], rel=0.1)
    assert corrected(even**0.5) == pytest.approx(even**0.5)
    planted = np.append(even**power, np.full(200, 1e-100))
    assert (corrected(planted)[-200:] < 1e-3).all()


def test_no_more_than_the_rate_are_chance() -> None:
    even = np.random.default_rng(1).random(1000)
    assert smallest(even).sum() <= 2
    assert (smallest(np.append(even, np.full(30, 1e-6)))[-30:]).all()


def test_a_perfect_model_makes_no_mistakes_and_questions_nothing() -> None:
    labels = np.arange(14).repeat(20)
    ages = RANGES.mid_ages[labels].round()
    judged = checked(labels, np.eye(14)[labels], ages, ages)
    table = pl.DataFrame({"index": range(280), "path": "a", "digest": "a", "age": ages.astype(int)})
    assert confident_mistakes(judged).tolist() == []
    assert label_errors(table, judged, RANGES).is_empty()


def test_the_most_confident_mistakes_are_wrong_and_sorted() -> None:
    judged, _, _ = answers(0.7)
    found = confident_mistakes(judged, 10)
    assert not judged.right[found].any()
    assert (np.diff(judged.confidence[found]) <= 0).all()
    assert judged.confidence[found[-1]] >= np.sort(judged.confidence[~judged.right])[-10]
