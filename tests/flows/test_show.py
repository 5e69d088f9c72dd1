"""What the terminal shows while flows run."""

import logging

import pytest

from flows import show
from tasks.watch import logger


def test_a_warning_of_the_library_reaches_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger("agepipe").level
    with show.progress():
        logging.getLogger("agepipe.learn.objective").warning("learn.l1: too large")
        logging.getLogger("agepipe.learn.fit").info("going on after epoch 3")
    logging.getLogger("agepipe.learn.objective").warning("nobody looks any more")
    said = capsys.readouterr().out
    assert "learn.l1: too large" in said
    assert "epoch 3" not in said
    assert "nobody" not in said
    assert logging.getLogger("agepipe").level == before
    assert logger.level == logging.NOTSET
