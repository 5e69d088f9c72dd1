"""The surest mistakes and the likeliest label errors."""

import io

import numpy as np
import polars as pl

from agepipe.ages import AgeRanges
from agepipe.judge.metrics import Judged, checked
from agepipe.judge.mistakes import believed, label_errors, surest_mistakes

RANGES = AgeRanges.of(("1-2", "3-5", "6-10", "11-30", "over30"))


def planted(count: int = 1000, wrong: int = 30) -> tuple[Judged, pl.DataFrame, np.ndarray]:
    """A good model, and some rows that carry the label of another range, whose places are returned."""
    random = np.random.default_rng(0)
    true = random.integers(0, 5, count)
    shares = random.dirichlet(np.ones(5), count) * 0.3
    shares[np.arange(count), true] += 0.7
    labels = true.copy()
    labels[:wrong] = (true[:wrong] + random.integers(1, 5, wrong)) % 5
    ages, years = (np.array([1, 4, 8, 20, 50])[classes] for classes in (labels, true))
    table = pl.DataFrame({"index": range(count), "path": [f"{k}.jpg" for k in range(count)], "age": ages})
    table = table.with_columns(digest=pl.col("path"))
    return checked(labels, shares, ages, years + random.normal(0, 1, count)), table, np.arange(wrong)


def test_planted_label_errors_are_found_and_ranked_first() -> None:
    judged, table, wrong = planted()
    found = label_errors(table, judged, RANGES)
    seen = set(found["index"].to_list())
    assert seen <= set(wrong.tolist())
    assert len(seen) >= 15  # the others lie within the model's own error, or it is less sure than it mostly is
    assert found["probability given"].is_sorted()
    assert found["years apart"].min() > judged.errors.mean()


def test_a_spreadsheet_takes_no_range_for_a_date() -> None:
    judged, table, _ = planted()
    found = label_errors(table, judged, RANGES)
    text = found.drop("index").write_csv()
    assert set(found["range given"]) | set(found["range suggested"]) <= {*RANGES.words}
    assert "1 to 2" in text
    assert not any(name in text for name in ("1-2", "3-5", "6-10"))
    read = pl.read_csv(io.StringIO(text), try_parse_dates=True)
    assert read["range suggested"].dtype == pl.String


def test_the_bar_of_a_class_is_what_its_own_rows_reach() -> None:
    labels = np.array([0, 0, 1, 1])
    shares = np.array([[0.9, 0.1, 0.0], [0.3, 0.7, 0.0], [0.4, 0.6, 0.0], [0.1, 0.4, 0.5]])
    # class 0 is reached from 0.6 on, class 1 from 0.5; class 2 has no rows and is never believed
    assert believed(labels, shares).tolist() == [0, 1, 1, -1]


def test_a_perfect_model_makes_no_mistakes_and_suspects_nothing() -> None:
    labels = np.array([0, 1, 2])
    judged = checked(labels, np.eye(5)[labels], [1, 4, 8], [1, 4, 8])
    table = pl.DataFrame({"index": [0, 1, 2], "path": ["a", "b", "c"], "digest": ["a", "b", "c"], "age": [1, 4, 8]})
    assert surest_mistakes(judged).tolist() == []
    assert label_errors(table, judged, RANGES).is_empty()


def test_the_surest_mistakes_are_wrong_and_sorted() -> None:
    judged, _, _ = planted()
    found = surest_mistakes(judged, 10)
    assert not judged.right[found].any()
    assert (np.diff(judged.confidence[found]) <= 0).all()
    assert judged.confidence[found[-1]] >= np.sort(judged.confidence[~judged.right])[-10]
