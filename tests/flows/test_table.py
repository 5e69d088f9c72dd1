"""The table of a search's settings, printed to text, and the lines that replace it if the output is a file."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from agepipe.search.progress import SearchState, SettingState
from flows.table import SearchTable, drawn, rows_of

BEST = SettingState({"lr": 0.003}, folds=2, scores=(0.4, 0.42))
HALF = SettingState({"lr": 0.0012345678, "head": "v1"}, folds=2, scores=(0.5,), epochs=(3,))
NOW = SearchState(
    metric="macro_recall", until=8, epochs=8, settings=(BEST, HALF), done=3, running=1, trials=4, seconds_left=200.0
)


def printed(state: SearchState) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(drawn(state))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_it_shows_the_results_the_running_trials_the_best_and_the_time_remaining() -> None:
    text = printed(NOW)
    for part in ("3 of 4 trials done", "1 running", "best so far macro recall 0.410", "about 3 min left"):
        assert part in text
    for part in ("lr=0.001235, head=v1", "epoch 3/8", "(0.500)", "2/2", "1/2"):
        assert part in text


def test_the_epochs_of_a_rung_are_shown() -> None:
    text = printed(replace(NOW, until=4))
    assert "each to 4 of 8 epochs" in text
    assert "epoch 3/4" in text


def test_of_many_settings_it_shows_the_best_and_those_in_training() -> None:
    many = [SettingState({"lr": place / 1000}, folds=1, scores=(1 - place / 100,)) for place in range(1, 31)]
    training = SettingState({"lr": 0.5}, folds=1, epochs=(2,))
    text = printed(SearchState("mae", 8, 8, (*many, training), done=30, running=1, trials=31, seconds_left=1.0))
    assert "lr=0.012" in text
    assert "lr=0.013" not in text
    assert "lr=0.5" in text
    assert "and 18 more settings" in text


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=140, force_terminal=False)


def shown(console: Console, *states: SearchState) -> tuple[str, SearchTable]:
    table = SearchTable(console)
    for state in states:
        table.show(state)
    return console.file.getvalue(), table  # type: ignore[attr-defined]


def test_without_a_terminal_each_complete_setting_is_one_line(console: Console) -> None:
    text, table = shown(console, NOW, NOW)
    assert text == "lr=0.003: macro recall 0.410 after 8 epochs\n"
    assert table.latest is NOW


def test_cached_results_are_not_shown(console: Console) -> None:
    text, table = shown(console, replace(NOW, seconds_left=None))
    assert (text, table.latest) == ("", None)


def test_a_terminal_keeps_the_table_of_a_finished_search() -> None:
    console = Console(file=io.StringIO(), width=140, force_terminal=True, highlight=False)
    finished = replace(NOW, done=4, running=0, settings=(BEST,))
    text, table = shown(console, NOW, finished, finished)
    assert text.count("4 of 4 trials done") == 1
    assert table.latest is None


def test_the_table_artifact_has_a_row_per_setting() -> None:
    assert rows_of(NOW)[0] == {"lr": 0.003, "epochs": 8, "folds": "2/2", "macro_recall": pytest.approx(0.41)}
