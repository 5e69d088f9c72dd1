"""The study of the carried network as its user runs it: a real process that trains, however little."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "sample", "--count", "140", "--size", "32", "--lr", "0.02", "0.04", "--weight-decay", "1e-4", "--folds", "2",
    "--epochs", "12", "--final", "4", "--seeds", "1",
)  # fmt: skip
ROW = re.compile(
    r"^(carried|fresh), .*?(weighted_recall|macro_recall) +([\d.]+) +([\d.]+) +([+-][\d.]+) .*?(\d+)%$", re.M
)


@pytest.fixture(scope="module")
def told() -> dict[tuple[str, str], tuple[float, ...]]:
    """Reported, really, gap and share seen, by procedure and figure."""
    words = [sys.executable, "-m", "studies.leak_study", *TINY]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=280, check=True)
    given, kept = map(int, re.findall(r"(\d+) given to both procedures, (\d+) kept from both", done.stdout)[0])
    assert 130 <= given + kept <= 140  # files with the same content count once
    assert "2 settings × 2 folds × 12 epochs, then up to 4; seeds 1" in done.stdout
    return {(row[0], row[1]): tuple(map(float, row[2:])) for row in ROW.findall(done.stdout)}


@pytest.mark.slow
def test_both_procedures_are_told_by_both_figures(told: dict[tuple[str, str], tuple[float, ...]]) -> None:
    assert set(told) == {
        (one, figure) for one in ("carried", "fresh") for figure in ("weighted_recall", "macro_recall")
    }
    for reported, really, gap, _ in told.values():
        assert gap == pytest.approx(reported - really, abs=0.0011)


@pytest.mark.slow
def test_the_carried_network_is_tested_on_what_it_was_fitted_on_and_the_fresh_one_never(
    told: dict[tuple[str, str], tuple[float, ...]],
) -> None:
    assert {key: row[3] for key, row in told.items() if key[0] == "carried"}.popitem()[1] == 100
    assert {key: row[3] for key, row in told.items() if key[0] == "fresh"}.popitem()[1] == 0
