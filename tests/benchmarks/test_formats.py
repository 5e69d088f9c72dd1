"""The benchmark of layouts and precisions as its user runs it: real epochs, however small."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_each_way_trains_and_is_compared_with_the_first() -> None:
    words = ["--network", "shufflenet_v2_x0_5", "--size", "32", "--batch", "16", "--rows", "64", "--rounds", "1"]
    ways = ["channels_last", "contiguous", "channels_last, bfloat16"]
    command = [sys.executable, "-m", "benchmarks.formats", *words, "--threads", "1", "--only", *ways]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    told = re.findall(r"│ ([a-z_, 0-9]+?) +│ +([\d,]+) │ +([\d.]+) │ +[\d.]+ │", done.stdout)
    assert [name for name, _, _ in told] == ways, done.stderr
    paces = [float(pace.replace(",", "")) for _, pace, _ in told]
    for pace, (_, _, ratio) in zip(paces, told, strict=True):
        assert float(ratio) == pytest.approx(pace / paces[0], abs=0.01 + 1 / paces[0])
