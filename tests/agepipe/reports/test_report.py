import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import pytest
from bundles import make_bundle, make_rows
from folders import evaluated

from agepipe.config.runtime import Runtime
from agepipe.config.stages import EvaluateSettings
from agepipe.evaluation.evaluate import compute_outcome, open_subject
from agepipe.evaluation.figures import span
from agepipe.evaluation.predictions import pixels_of
from agepipe.model.ages import AgeRanges
from agepipe.model.bundle_files import read_curves
from agepipe.reports.evaluation import shown
from agepipe.reports.plots import PICTURES, confusion_plot, curve_plot, draw, draw_curves
from agepipe.reports.prediction_plots import error_by_age
from agepipe.reports.report import TITLES, markdown, render
from agepipe.reports.theme import VARIABLES, inline

QUICK = EvaluateSettings(draws=100)


class Page(HTMLParser):
    """Collects the text, the tags left open and every address in the page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.addresses: list[str] = []
        self.boxes: list[list[str]] = []
        """What is strong in a box of warning."""
        self.warns = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)
        if tag == "p":
            self.boxes.append([])
            self.warns = ("class", "warn") in attrs

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-2:] == ["p", "strong"] and self.warns:
            self.boxes[-1].append(data)
        self.text.append(data)


def read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text())
    assert page.open == []
    return page


def test_the_page_is_whole_and_asks_nothing_of_the_network(tmp_path: Path, runtime: Runtime) -> None:
    rows, model = make_rows(tmp_path / "rows", 200), make_bundle(tmp_path / "model")
    page = read(evaluated(model, rows, QUICK, runtime).report)
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    text = " ".join(page.text)
    for words in (*TITLES.values(), "95 % interval", "0 by content, 0 by appearance", "recall error (1 − recall)"):
        assert words in text


def test_names_are_escaped(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", 50).model_copy(update={"name": "<script>alert(1)</script>"})
    outcome = compute_outcome(open_subject(make_bundle(tmp_path / "model"), rows), QUICK, runtime)
    page = render(outcome, draw(outcome, tmp_path), shown(outcome, pixels_of(rows, outcome.table)))
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_an_unknown_lineage_is_said_in_plain_words(tmp_path: Path, runtime: Runtime) -> None:
    rows, model = make_rows(tmp_path / "rows", 50), make_bundle(tmp_path / "model", known=False, curves=False)
    (model.folder / "curves.parquet").unlink(missing_ok=True)
    text = " ".join(read(evaluated(model, rows, QUICK, runtime).report).text)
    assert "What this model was trained on is unknown." in text
    assert "unseen" not in text
    assert "Training curves" not in text


def test_many_ranges_are_drawn_without_numbers(tmp_path: Path, runtime: Runtime) -> None:
    years = AgeRanges.of("years")
    rows, model = make_rows(tmp_path / "rows", 300, years), make_bundle(tmp_path / "model", years, sharpness=3000)
    found = evaluated(model, rows, QUICK, runtime)
    read(found.report)
    assert found.report.stat().st_size < 600_000


@pytest.mark.parametrize(("sharpness", "better"), [(2000.0, True), (0.0, False)])
def test_a_model_no_better_than_a_constant_guess_is_warned_of_wherever_it_is_read(
    tmp_path: Path, runtime: Runtime, sharpness: float, better: bool
) -> None:
    rows = make_rows(tmp_path / "rows", 200, noise=0.01)
    found = evaluated(make_bundle(tmp_path / "model", sharpness=sharpness), rows, QUICK, runtime)
    assert bool(found.warning) is not better
    page = read(found.report)
    for text in ("\n".join(page.text), found.model_card.read_text(encoding="utf-8"), markdown(found)):
        assert found.verdict in text
        assert found.warning in text
    shown = [words for box in page.boxes for words in box]
    assert (found.warning in shown) is not better


def test_the_constant_answer_is_the_commonest_range_and_the_median_age(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", 200)
    outcome = compute_outcome(open_subject(make_bundle(tmp_path / "model"), rows), QUICK, runtime)
    shares = outcome.table["label"].value_counts(normalize=True)["proportion"]
    majority, median = outcome.baselines["majority"], outcome.baselines["median"]
    assert majority["accuracy"] == pytest.approx(shares.max())
    assert majority["macro_recall"] == median["macro_recall"] == 0.25
    ages = outcome.table["age"].cast(float)
    middle = ages.median()
    assert median["mae"] == pytest.approx((ages - middle).abs().mean())
    assert median["mae"] < majority["mae"]
    of_median = outcome.card.ranges.class_of(int(middle))
    assert median["accuracy"] == pytest.approx((outcome.table["label"] == of_median).mean())


def test_drawings_take_the_page_s_colours_and_size(tmp_path: Path, runtime: Runtime) -> None:
    outcome = compute_outcome(
        open_subject(make_bundle(tmp_path / "model"), make_rows(tmp_path / "rows", 80)), QUICK, runtime
    )
    for svg in draw(outcome, tmp_path).values():
        head = svg[: svg.index(">")]
        assert head.startswith("<svg")
        assert " width=" not in head
        assert " height=" not in head
        assert "viewBox" in head
        assert "var(--ink)" in svg
        assert not any(colour in svg for colour in VARIABLES)
    first = draw(outcome, tmp_path)
    assert first == draw(outcome, tmp_path)


def test_class_names_label_the_matrix_in_their_order() -> None:
    ranges = AgeRanges.of("utkface")
    figure = confusion_plot(__import__("numpy").eye(14, dtype=int), ranges.names)
    axes = figure.axes[0]
    assert tuple(label.get_text() for label in axes.get_xticklabels()) == ranges.names
    assert tuple(label.get_text() for label in axes.get_yticklabels()) == ranges.names
    assert axes.yaxis_inverted()


def test_errors_are_binned_by_true_age(tmp_path: Path, runtime: Runtime) -> None:
    outcome = compute_outcome(
        open_subject(make_bundle(tmp_path / "model"), make_rows(tmp_path / "rows", 300)), QUICK, runtime
    )
    centres, quantiles = error_by_age(outcome.predictions)
    assert centres[0] == 2.0
    assert quantiles.shape == (5, len(centres))
    youngest = outcome.predictions.ages < 5
    errors = (outcome.predictions.years - outcome.predictions.ages)[youngest]
    assert sorted(errors)[len(errors) // 2] >= quantiles[2, 0] >= sorted(errors)[(len(errors) - 1) // 2]


def test_a_training_leaves_four_pictures(tmp_path: Path) -> None:
    draw_curves(read_curves(make_bundle(tmp_path / "model").folder), 4, tmp_path)
    drawn = {path.name: cv2.imread(str(path)) for path in tmp_path.glob("*.png")}
    assert set(drawn) == {"precision.png", "recall.png", "precision-error.png", "recall-error.png"}
    assert all(picture.shape == (520, 832, 3) and picture.std() > 5 for picture in drawn.values())


@pytest.mark.parametrize(("name", "curve"), PICTURES)
def test_a_picture_shows_training_beside_validation_or_one_minus_them(
    name: str, curve: tuple[str, str, bool], tmp_path: Path
) -> None:
    curves = read_curves(make_bundle(tmp_path / "model").folder)
    axes = curve_plot(curves, curve, 4).axes[0]
    lines = {str(line.get_label()): line.get_ydata() for line in axes.lines}
    column = curve[0]
    assert name.startswith(column.removeprefix("macro_"))
    for label, part in (("training", "train"), ("validation", "validation")):
        values = curves[f"{part}_{column}"].to_numpy()
        assert lines[label] == pytest.approx(1 - values if name.endswith("error") else values)
    assert "kept: epoch 4" in lines


def test_a_training_without_validation_is_drawn_alone(tmp_path: Path) -> None:
    curves = read_curves(make_bundle(tmp_path / "model").folder)
    alone = curves.select(name for name in curves.columns if not name.startswith("validation"))
    axes = curve_plot(alone, PICTURES[0][1], 0).axes[0]
    assert [line.get_label() for line in axes.lines] == ["training"]


def test_an_svg_loses_its_head_only() -> None:
    text = '<?xml version="1.0"?>\n<svg height="10pt" viewBox="0 0 1 1" width="20pt"><rect width="1" height="2"/></svg>'
    assert inline(text) == '<svg viewBox="0 0 1 1"><rect width="1" height="2"/></svg>'


def test_an_interval_names_its_unit_once() -> None:
    assert re.fullmatch(r"40\.0 to 60\.0.%", span((0.4, 0.6), "accuracy"))
    assert span((1.5, 2.5), "mae") == "1.50 to 2.50"
