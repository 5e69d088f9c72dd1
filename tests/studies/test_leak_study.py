"""The study of the carried network on few drawn faces, in this process."""

import re
import sys

import pytest

from studies import leak_study

TINY = (
    "sample", "--count", "140", "--size", "32", "--lr", "0.02", "0.04", "--weight-decay", "1e-4", "--folds", "2",
    "--epochs", "1", "--final", "1", "--seeds", "1",
)  # fmt: skip
ROW = re.compile(
    r"^(carried|fresh), .*?(weighted_recall|macro_recall) +([\d.]+) +([\d.]+) +([+-][\d.]+) .*?(\d+)%$", re.M
)


@pytest.mark.slow
def test_the_carried_network_is_tested_on_what_it_was_fitted_on_and_the_fresh_one_never(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["leak_study", *TINY])
    leak_study.main()
    printed = capsys.readouterr().out
    given, kept = map(int, re.findall(r"(\d+) given to both procedures, (\d+) kept from both", printed)[0])
    assert 130 <= given + kept <= 140  # files with the same content count once
    assert "2 settings × 2 folds × 1 epochs, then up to 1; seeds 1" in printed
    rows = {(name, figure): tuple(map(float, numbers)) for name, figure, *numbers in ROW.findall(printed)}
    figures = ("weighted_recall", "macro_recall")
    assert set(rows) == {(name, figure) for name in ("carried", "fresh") for figure in figures}
    for reported, really, gap, _ in rows.values():
        assert gap == pytest.approx(reported - really, abs=0.0011)
    assert [rows[name, "macro_recall"][3] for name in ("carried", "fresh")] == [100, 0]
