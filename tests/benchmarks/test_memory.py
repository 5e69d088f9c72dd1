"""The benchmark of memory as its user runs it: real trainings, however small."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"│ +([\d,]+) │ +([\d,]+) │ +([\d,]+) │ +([\d.]+) │ +([\d,]+) │")


@pytest.mark.slow
def test_each_store_is_trained_on_and_memory_is_told_beside_its_size() -> None:
    words = ["-m", "benchmarks.memory", "--rows", "200", "--times", "1", "3", "--stored", "64", "--threads", "1"]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=280)
    told = [[float(part.replace(",", "")) for part in row] for row in ROW.findall(done.stdout)]
    assert [row[:2] for row in told] == [[200, 2], [600, 7]], done.stderr
    share = float(re.findall(r"grows by (-?[\d.]+) of what", done.stdout)[0])
    assert done.returncode == int(share > 0.1)
    assert all(row[2] > 50 for row in told)
