"""The table of trials, drawn on a terminal that is not there, and the lines that replace it."""

import io
import logging
from dataclasses import replace

import pytest
from rich.console import Console

from agepipe.search.progress import Line, Standing
from flows.table import Trials, drawn

BEST = Line({"lr": 0.003}, folds=2, scores=(0.4, 0.42))
HALF = Line({"lr": 0.0012345678, "head": "v1"}, folds=2, scores=(0.5,), epochs=(3,))
NOW = Standing(
    metric="macro_recall", until=8, planned=8, lines=(BEST, HALF), done=3, running=1, trials=4, seconds_left=200.0
)


def said(standing: Standing) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(drawn(standing))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_it_shows_what_is_done_what_runs_the_best_and_the_time_left() -> None:
    text = said(NOW)
    for part in ("3 of 4 trials done", "1 running", "best so far macro recall 0.410", "about 3 min left"):
        assert part in text
    for part in ("lr=0.001235, head=v1", "epoch 3/8", "(0.500)", "2/2", "1/2"):
        assert part in text


def test_a_rung_says_that_it_is_one() -> None:
    text = said(replace(NOW, until=4))
    assert "each to 4 of 8 epochs" in text
    assert "epoch 3/4" in text


def test_of_many_settings_it_shows_the_best_and_those_in_training() -> None:
    many = [Line({"lr": place / 1000}, folds=1, scores=(1 - place / 100,)) for place in range(1, 31)]
    training = Line({"lr": 0.5}, folds=1, epochs=(2,))
    text = said(Standing("mae", 8, 8, (*many, training), done=30, running=1, trials=31, seconds_left=1.0))
    assert "lr=0.012" in text
    assert "lr=0.013" not in text
    assert "lr=0.5" in text
    assert "and 18 more settings" in text


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=140, force_terminal=False)


def heard(console: Console, *standings: Standing) -> tuple[str, Trials]:
    trials = Trials(console)
    for standing in standings:
        trials.emit(logging.makeLogRecord({"standing": standing}))
    return console.file.getvalue(), trials  # type: ignore[attr-defined]


def test_without_a_terminal_each_judged_setting_is_one_line(console: Console) -> None:
    text, trials = heard(console, NOW, NOW)
    assert text == "lr=0.003: macro recall 0.410 after 8 epochs\n"
    assert trials.latest is NOW


def test_what_was_only_found_is_not_told(console: Console) -> None:
    text, trials = heard(console, replace(NOW, seconds_left=None))
    assert (text, trials.latest) == ("", None)


def test_a_terminal_keeps_the_table_of_a_finished_round() -> None:
    console = Console(file=io.StringIO(), width=140, force_terminal=True, highlight=False)
    over = replace(NOW, done=4, running=0, lines=(BEST,))
    text, trials = heard(console, NOW, over, over)
    assert text.count("4 of 4 trials done") == 1
    assert trials.latest is None
