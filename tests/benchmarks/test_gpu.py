"""The benchmark of a GPU, a few steps of each part on a CPU: it has to work at the first try where a GPU is rare."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_every_part_runs_a_few_steps_on_a_cpu() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--small", "--minutes", "0.3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    rows = [line.split(" | ") for line in done.stdout.splitlines() if " | " in line]
    assert {part for part, *_ in rows} == {"peak", "network", "grid", "preset", "trials", "answers"}, done.stderr
    rates = [re.match(r"([\d,.]+) images/s", figure) for _, _, figure, *_ in rows]
    assert sum(float(rate[1].replace(",", "")) > 0 for rate in rates if rate) >= 4
    trials = [re.match(r"(\d+) of 80 trials", what) for part, what, *_ in rows if part == "grid"]
    assert [int(found[1]) > 0 for found in trials if found] == [True, True]
