"""The benchmark of processes that share a training, as its user runs it: real ones, however small."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_both_ways_are_trained_and_told_beside_each_other() -> None:
    words = ["--network", "shufflenet_v2_x0_5", "--size", "32", "--batch", "16", "--rows", "64", "--rounds", "1"]
    command = [sys.executable, "-m", "benchmarks.processes", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    told = re.findall(r"│ (one|two) process\w*, (?:two|one) threads?(?: each)? +│ +([\d,]+) │ +([\d.]+) │", done.stdout)
    (first, alone, one), (second, shared, ratio) = told
    assert (first, second, one) == ("one", "two", "1.00")
    slow, fast = float(alone), float(shared)  # whole numbers: a half is rounded off each
    assert (fast - 0.5) / (slow + 0.5) - 0.01 <= float(ratio) <= (fast + 0.5) / max(slow - 0.5, 0.5) + 0.01
