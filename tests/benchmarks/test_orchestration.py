"""The benchmark of a search's cost as its user runs it: a real search, with Prefect and MLflow, of four trials."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"│ +(\d+) │ +([\d.]+) │ +([\d.]+) │ +([\d.]+) │ +([\d.]+) │ +([\d.]+) │ +([\d.]+) │")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_is_beside_the_epochs_is_the_sum_of_its_parts() -> None:
    words = ["-m", "benchmarks.orchestration", "--trials", "4", "--rows", "56"]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=580)
    trials, epochs, beside, *parts = map(float, ROW.findall(done.stdout)[0])
    assert trials == 4
    assert epochs > 0
    assert all(part > 0 for part in parts)
    assert beside == pytest.approx(sum(parts), abs=0.005)
    assert done.returncode == int(beside > 0.5)
