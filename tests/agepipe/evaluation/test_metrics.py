import warnings
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from agepipe.core.errors import DataError
from agepipe.evaluation.metrics import FIGURES, by_range, checked, confusion, figures
from agepipe.model.calibration import BINS


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels out of few of the classes, so that classes without rows and single classes come up often."""
    classes, count = draw(st.integers(2, 6)), draw(st.integers(1, 25))
    some = draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=3))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = random.choice(some, count)
    probabilities = random.dirichlet(np.ones(classes), count)
    return labels, probabilities, random.integers(1, 90, count), random.uniform(0, 90, count)


@settings(max_examples=60, deadline=None)
@given(answers())
def test_figures_agree_with_scikit_learn(case: Any) -> None:
    labels, probabilities, ages, years = case
    classes = list(range(probabilities.shape[1]))
    predicted = probabilities.argmax(axis=1)
    found = figures(checked(*case))
    assert tuple(found) == FIGURES
    options = {"labels": classes, "zero_division": 0}
    for average in ("macro", "weighted"):
        assert found[f"{average}_precision"] == sk.precision_score(labels, predicted, average=average, **options)
        assert found[f"{average}_recall"] == sk.recall_score(labels, predicted, average=average, **options)
        assert found[f"{average}_f1"] == pytest.approx(sk.f1_score(labels, predicted, average=average, **options))
    assert found["accuracy"] == sk.accuracy_score(labels, predicted)
    assert found["within_one"] == np.mean([abs(a - b) < 2 for a, b in zip(labels, predicted, strict=True)])
    assert found["mae"] == pytest.approx(np.mean(np.abs(ages - years)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found["loss"] == pytest.approx(sk.log_loss(labels, probabilities, labels=classes), rel=1e-9)
    sure = probabilities.max(axis=1)
    true, said = calibration_curve(predicted == labels, sure, n_bins=BINS)
    rows = np.histogram(sure, BINS, (0, 1))[0]
    assert found["ece"] == pytest.approx(np.average(np.abs(true - said), weights=rows[rows > 0]))


@settings(max_examples=40, deadline=None)
@given(answers())
def test_the_table_by_range_adds_up_to_the_figures(case: Any) -> None:
    labels, probabilities, *_ = case
    names = tuple(f"r{k}" for k in range(probabilities.shape[1]))
    rows = checked(*case)
    found, table = figures(rows), by_range(names, rows)
    assert table["range"].to_list() == list(names)
    assert table.schema["support"] == pl.Int64
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        labels, probabilities.argmax(axis=1), labels=range(len(names)), zero_division=0
    )
    for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
        assert table[name].to_list() == values.tolist()
    assert table["recall"].mean() == pytest.approx(found["macro_recall"])
    assert table["precision"].mean() == pytest.approx(found["macro_precision"])
    weights = table["support"] / len(labels)
    assert (weights * table["mae"].fill_null(0)).sum() == pytest.approx(found["mae"])
    assert table.filter(support=0)["mae"].null_count() == (table["support"] == 0).sum()
    counts = confusion(labels, probabilities.argmax(axis=1), len(names))
    assert counts.sum(axis=1).tolist() == table["support"].to_list()
    assert counts.trace() == round(found["accuracy"] * len(labels))


def test_confusion_keeps_the_class_order() -> None:
    assert confusion([0, 2, 2, 10], [1, 2, 0, 2], 11)[[0, 2, 2, 10], [1, 2, 0, 2]].tolist() == [1, 1, 1, 1]


def test_a_sure_mistake_costs_a_finite_loss() -> None:
    found = figures(checked([0], [[0.0, 1.0]], [3], [4.0]))
    assert found["loss"] == pytest.approx(27.63, abs=0.01)


GOOD: dict[str, Any] = {
    "labels": [0, 1],
    "probabilities": [[0.9, 0.1], [0.2, 0.8]],
    "ages": [3, 40],
    "years": [4.0, 38.0],
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": [], "probabilities": np.empty((0, 2)), "ages": [], "years": []}, "no rows"),
        ({"probabilities": [[np.nan, 0.1], [0.2, 0.8]]}, "probabilities: 1 of 4 values are not finite"),
        ({"probabilities": [0.1, 0.9]}, r"probabilities: shape \(2,\)"),
        ({"probabilities": [[1.0], [1.0]]}, "2 classes or more"),
        ({"probabilities": [[3.0, -2.0], [0.2, 0.8]]}, "between 0 and 1"),
        ({"labels": [0, 2]}, "labels: 2 has no class"),
        ({"labels": [-1, 0]}, "labels: -1 has no class"),
        ({"labels": [0, 1, 1]}, r"labels: shape \(3,\)"),
        ({"ages": [3]}, "ages: shape"),
        ({"years": [4.0, np.inf]}, "years: 1 of 2 values"),
    ],
)
def test_what_cannot_be_judged_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        checked(**(GOOD | change))


@pytest.mark.parametrize("decoding", ["likeliest", "median"])
def test_one_class_only_and_sure_of_it(decoding: Any) -> None:
    shares = np.tile([0.0, 1.0, 0.0], (4, 1))
    found = figures(checked([1] * 4, shares, [30] * 4, [30.0] * 4, decoding))
    assert (found["accuracy"], found["weighted_f1"], found["ece"], found["loss"], found["mae"]) == (1, 1, 0, 0, 0)
    assert found["macro_recall"] == pytest.approx(1 / 3)


def test_names_must_be_as_many_as_classes() -> None:
    with pytest.raises(DataError, match="3 names for 2 columns"):
        by_range(("a", "b", "c"), checked(**GOOD))
