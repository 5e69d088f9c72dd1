"""What the terminal shows while flows run."""

import logging
from pathlib import Path

import pytest
from rich.progress import Progress

from agepipe.evaluation.records import Evaluation
from agepipe.reports.report import TITLES
from flows import show
from flows.table import duration
from tasks.watch import Step, logger


def test_a_warning_of_the_library_reaches_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger("agepipe").level
    with show.progress():
        logging.getLogger("agepipe.training.objective").warning("learn.l1: too large")
        logging.getLogger("agepipe.training.loop").info("resuming after epoch 3")
    logging.getLogger("agepipe.training.objective").warning("nobody looks any more")
    said = capsys.readouterr().out
    assert "learn.l1: too large" in said
    assert "epoch 3" not in said
    assert "nobody" not in said
    assert logging.getLogger("agepipe").level == before
    assert logger.level == logging.NOTSET


def _report(bars: show.Bars, *steps: Step) -> None:
    for step in steps:
        bars.handle(logging.makeLogRecord({"step": step}))


def test_a_file_gets_lines_while_a_stage_goes_on_and_one_at_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [Step("train", 2, 42, "macro recall 0.2"), Step("train", 4, 42, "macro recall 0.3"), Step("train", 42, 42)]
    _report(show.Bars(Progress(), every=0.0), *steps, steps[-1])
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.startswith("train: 2 of 42, macro recall 0.2 (")
    assert "left" not in first  # nothing was seen to be done yet, for a training may go on from a checkpoint
    assert second.startswith("train: 4 of 42, macro recall 0.3 (") and second.endswith(" left)")
    assert last.startswith("train: 42 (")


def test_the_terminal_and_the_pages_name_a_figure_alike() -> None:
    shown = {name: title for name, title in show.SHOWN.items() if name != "mae"}
    assert shown == {name: TITLES[name] for name in shown}


def test_a_file_is_not_flooded(capsys: pytest.CaptureFixture[str]) -> None:
    _report(show.Bars(Progress()), *(Step("train", done, 42) for done in range(1, 42)))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("seconds", "words"), [(7.4, "7 s"), (119, "2 min"), (5_000, "83 min"), (7_200, "2.0 h")])
def test_durations_have_the_unit_that_fits(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize("warning", ["", "No better than a guess in [years]."])
def test_a_model_that_is_no_better_than_a_guess_is_warned_of(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, warning: str
) -> None:
    figures = dict.fromkeys(show.SHOWN, 0.5)
    done = Evaluation(
        digest="e" * 64, model="m" * 64, rows="r" * 64, count=100, folder=tmp_path, metrics=figures,
        intervals=dict.fromkeys(figures, (0.4, 0.6)), verdict="Picks the right one of [14] ranges.", warning=warning,
    )  # fmt: skip
    show.evaluation(done)
    said = capsys.readouterr().out
    assert done.verdict in said
    assert ("Warning" in said) is bool(warning)
    assert warning in said
