"""Each benchmark once with its smallest options, in this process: what it prints and the exit status agree."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, memory, millions, notebook_search, orchestration, training

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

Run = Callable[..., tuple[int, str]]
"""Calls a `main` with words of a command line; returns its exit status and what was printed."""
SMALL = ("--network", "shufflenet_v2_x0_5", "--size", "32", "--batch", "16", "--rows", "64", "--threads", "1")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    def called(main: Callable[[], int | None], *words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["benchmark", *words])
        return main() or 0, capfd.readouterr().out

    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield called
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture
def kept_server(prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that the benchmark starts use the server of the tests instead of a temporary one each."""
    from prefect.settings import PREFECT_API_URL

    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))


def test_both_training_loops_are_timed(run: Run) -> None:
    status, printed = run(training.main, *SMALL, "--rounds", "1", "--augment")
    rows = re.findall(r"│ (bare loop|the pipeline's loop) +│ +[\d,]+ │ +([\d.]+) │", printed)
    assert [name for name, _ in rows] == ["bare loop", "the pipeline's loop"], printed
    ratio = float(rows[1][1])
    assert abs(ratio - 0.95) < 0.01 or status == int(ratio < 0.95)


def test_memory_is_compared_with_the_size_of_each_store(run: Run) -> None:
    status, printed = run(memory.main, "--rows", "200", "--times", "1", "3", "--stored", "64", "--threads", "1")
    found = re.findall(r"│ +([\d,]+) │ +([\d,]+) │ +([\d,]+) │ +([\d.]+) │ +([\d,]+) │", printed)
    rows = [[float(part.replace(",", "")) for part in row] for row in found]
    assert [row[:2] for row in rows] == [[200, 2], [600, 7]], printed
    share = float(re.findall(r"grows by (-?[\d.]+) of what", printed)[0])
    assert status == int(share > 0.1)
    assert all(row[2] > 50 for row in rows)


def test_chips_are_made_ingested_and_predicted_in_processes_that_are_measured(run: Run, tmp_path: Path) -> None:
    status, printed = run(millions.main, str(tmp_path), "--rows", "250", "--archive", "100")
    assert status == 0, printed
    rows = re.findall(r"│ (\w+) +│ +([\d.]+) │ +([\d,]+) │ +([\d.]+) │ +([\d,]+) │ +([\d,]+) │", printed)
    assert [row[0] for row in rows] == ["decode", "ingest", "predict"], printed
    assert all(20 < int(row[5].replace(",", "")) < 1000 for row in rows)
    assert "250 photographs in 245 groups" in printed
    assert "250 faces of 250 photographs" in printed


def test_every_part_of_the_gpu_benchmark_runs_a_few_steps_on_a_cpu(run: Run) -> None:
    """It has to work at the first try where a GPU is rare."""
    status, printed = run(gpu.main, "--small", "--minutes", "0.02")
    assert status == 0, printed
    rows = [line.split(" | ") for line in printed.splitlines() if " | " in line]
    assert {part for part, *_ in rows} == {"peak", "network", "grid", "preset", "trials", "answers"}, printed
    rates = [re.match(r"([\d,.]+) images/s", figure) for _, _, figure, *_ in rows]
    assert sum(float(rate[1].replace(",", "")) > 0 for rate in rates if rate) >= 4
    trials = [re.match(r"(\d+) of 80 trials", what) for part, what, *_ in rows if part == "grid"]
    assert [int(found[1]) > 0 for found in trials if found] == [True, True]


def test_a_part_of_the_gpu_benchmark_that_fails_costs_no_other(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Iterator[gpu.Row]:
        yield gpu.Row("trials", "1 alone", "7 images/s")
        raise RuntimeError("out of memory")

    monkeypatch.setattr(gpu, "trials", broken)
    status, printed = run(gpu.main, "--small", "--minutes", "0.02", "--only", "trials", "answers")
    assert status == 1
    assert "RuntimeError: out of memory" in " ".join(printed.split())
    assert "7 images/s" in printed
    assert "CPUExecutionProvider" in printed


def test_the_ratio_of_the_two_searches_is_that_of_their_wall_times(run: Run, kept_server: None) -> None:
    words = ("--rows", "84", "--size", "32", "--lr", "0.01", "0.02", "--weight-decay", "1e-4", "--folds", "2")
    status, printed = run(notebook_search.main, "sample", *words)
    assert "4 trials of 1 epochs over 84 photographs" in " ".join(printed.split()), printed
    theirs, ours, ratio = map(float, re.findall(r"│ all +│ +([\d.]+) │ +([\d.]+) │ +([\d.]+) │", printed)[0])
    assert ratio == pytest.approx(theirs / ours, abs=0.05)
    assert status == int(ratio < 3)


def test_what_a_search_costs_beside_its_epochs_is_the_sum_of_its_parts(run: Run, kept_server: None) -> None:
    status, printed = run(orchestration.main, "--trials", "4", "--rows", "56")
    row = re.findall(r"│ +(\d+) │" + r" +([\d.]+) │" * 6, printed)[0]
    trials, epochs, beside, *parts = map(float, row)
    assert trials == 4
    assert epochs > 0
    assert all(part > 0 for part in parts)
    assert beside == pytest.approx(sum(parts), abs=0.005)
    assert status == int(beside > orchestration.AIM)
