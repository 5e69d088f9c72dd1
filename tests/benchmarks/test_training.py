"""The benchmark of the training loop as its user runs it: real epochs, however small."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_both_loops_train_and_the_exit_status_says_whether_the_aim_is_reached() -> None:
    words = ["--network", "shufflenet_v2_x0_5", "--size", "32", "--batch", "16", "--rows", "64", "--rounds", "3"]
    command = [sys.executable, "-m", "benchmarks.training", *words, "--threads", "1", "--augment"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    told = re.findall(r"│ (bare loop|the pipeline's loop) +│ +[\d,]+ │ +([\d.]+) │", done.stdout)
    assert [name for name, _ in told] == ["bare loop", "the pipeline's loop"], done.stderr
    ratio = float(told[1][1])
    assert abs(ratio - 0.95) < 0.01 or done.returncode == int(ratio < 0.95)
