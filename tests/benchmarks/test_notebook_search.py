"""The notebook's way beside ours as its user runs it: two real searches on drawn faces."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TINY = ("sample", "--rows", "140", "--size", "32", "--lr", "0.01", "0.02", "--weight-decay", "1e-4", "--folds", "2")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_both_ways_are_timed_and_the_ratio_is_that_of_their_wall_times() -> None:
    words = [sys.executable, "-m", "benchmarks.notebook_search", *TINY]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=580)
    assert "4 trials of 1 epochs over 140 photographs" in " ".join(done.stdout.split()), done.stderr
    theirs, ours, ratio = map(float, re.findall(r"│ all +│ +([\d.]+) │ +([\d.]+) │ +([\d.]+) │", done.stdout)[0])
    assert ratio == pytest.approx(theirs / ours, abs=0.05)
    assert done.returncode == int(ratio < 3)
