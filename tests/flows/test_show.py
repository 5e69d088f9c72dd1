"""What the terminal shows while flows run."""

import logging
from pathlib import Path

import pytest

from agepipe.evaluation.records import Evaluation
from flows import show
from tasks.watch import logger


def test_a_warning_of_the_library_reaches_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger("agepipe").level
    with show.progress():
        logging.getLogger("agepipe.training.objective").warning("learn.l1: too large")
        logging.getLogger("agepipe.training.loop").info("going on after epoch 3")
    logging.getLogger("agepipe.training.objective").warning("nobody looks any more")
    said = capsys.readouterr().out
    assert "learn.l1: too large" in said
    assert "epoch 3" not in said
    assert "nobody" not in said
    assert logging.getLogger("agepipe").level == before
    assert logger.level == logging.NOTSET


@pytest.mark.parametrize("warning", ["", "No better than a guess in [years]."])
def test_a_model_that_is_no_better_than_a_guess_is_warned_of(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, warning: str
) -> None:
    figures = dict.fromkeys(show.FIGURES, 0.5)
    done = Evaluation(
        digest="e" * 64, model="m" * 64, rows="r" * 64, count=100, folder=tmp_path, metrics=figures,
        intervals=dict.fromkeys(figures, (0.4, 0.6)), verdict="Picks the right one of [14] ranges.", warning=warning,
    )  # fmt: skip
    show.evaluation(done)
    said = capsys.readouterr().out
    assert done.verdict in said
    assert ("Warning" in said) is bool(warning)
    assert warning in said
