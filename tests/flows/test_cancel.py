"""A pipeline that a signal cancels: every training ends at once, every MLflow run of it is KILLED in time.

That Prefect cancels one is in `test_up.py`, which has its servers.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from commands import AGEPIPE, lives
from test_kill import finished, under_way
from workspaces import runtime_in

from agepipe.config.runtime import Runtime
from agepipe.registry import tracking
from flows import services

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LIMIT = 30.0
"""Seconds from the signal to the end of all MLflow runs; then Prefect's worker would kill the flow. It takes about four
on two cores, and longer beside other tests."""
SMALL = {
    "ingest.size": "36",
    "learn.size": "32",
    "learn.network": "shufflenet_v2_x0_5",
    "learn.batch": "32",
    "search.grid": "{lr=[0.003,0.01,0.02]}",  # more trials than find a place at a time
    "search.folds": "2",
    "evaluate.draws": "200",
}
FOR_EVER = 2000
"""Epochs that nobody waits for."""
STAGES = {"search": "trials", "training": "models"}


def epochs(moment: str) -> tuple[int, int]:
    """Of a trial and of the last training, so that the moment lasts."""
    return (FOR_EVER, 1) if moment == "search" else (1, FOR_EVER)


def start(folder: Path, drawn: Path, moment: str, runner: str) -> subprocess.Popen[bytes]:
    from prefect.settings import PREFECT_API_URL

    trial, last = epochs(moment)
    words = [f"{name}={value}" for name, value in SMALL.items()] + [f"learn.epochs={trial}", f"final.epochs={last}"]
    words += ["--data", str(drawn), "--device", "cpu", "--workers", "2", "--threads", "1", "--runner", runner]
    environ = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value()), "OMP_NUM_THREADS": "1"}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    with (folder / "output").open("wb") as output:
        return subprocess.Popen(
            [AGEPIPE, "run", "sample", *words], cwd=folder, env=environ, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip


def states(runtime: Runtime) -> dict[str, list[tuple[str, str]]]:
    """Of each kind of run, how they stand and why."""
    found = tracking.client(runtime).search_runs([tracking.prepare(runtime)], max_results=1000)
    kinds: dict[str, list[tuple[str, str]]] = {}
    for run in found:
        kinds.setdefault(run.data.tags["agepipe.kind"], []).append(
            (run.info.status, run.data.tags.get("agepipe.error", ""))
        )
    return kinds


def settled(runtime: Runtime, begun: float) -> dict[str, list[tuple[str, str]]]:
    """The runs, once none is RUNNING."""
    found = states(runtime)
    while any(status == "RUNNING" for runs in found.values() for status, _ in runs):
        assert time.monotonic() - begun < LIMIT, found
        time.sleep(0.1)
        found = states(runtime)
    return found


def check_killed(runtime: Runtime, moment: str, begun: float) -> None:
    found = settled(runtime, begun)
    assert [status for status, _ in found["pipeline"]] == ["KILLED"]
    cut = {"search": "trial", "training": "train"}[moment]
    assert "KILLED" in {status for status, _ in found[cut]}
    assert all(status in ("KILLED", "FINISHED") for runs in found.values() for status, _ in runs)
    assert not [why for runs in found.values() for _, why in runs if "BrokenPipe" in why]


def wait_for(moment: str, workspace: Path) -> None:
    limit = time.monotonic() + 600
    while not under_way(workspace, STAGES[moment]):
        assert time.monotonic() < limit
        time.sleep(0.05)
    time.sleep(2)
    assert len(finished(workspace, "trials")) == (0 if moment == "search" else 6)


@pytest.mark.parametrize(
    ("moment", "number", "group", "runner"),
    [
        ("search", signal.SIGTERM, False, "processes"),
        ("search", signal.SIGINT, True, "threads"),
        ("training", signal.SIGTERM, True, "threads"),
    ],
)
def test_a_signal_ends_all_trainings_and_all_runs(
    moment: str, number: signal.Signals, group: bool, runner: str, drawn: Path, tmp_path: Path, prefect_server: None
) -> None:
    """Ctrl-C and Prefect's worker signal the whole group of processes, `kill` the command alone."""
    runtime = runtime_in(tmp_path)
    process = start(tmp_path, drawn, moment, runner)
    try:
        wait_for(moment, runtime.workspace)
        family = psutil.Process(process.pid).children(recursive=True)
        begun = time.monotonic()
        os.killpg(process.pid, number) if group else process.send_signal(number)
        check_killed(runtime, moment, begun)
        assert process.wait(timeout=60) != 0
        assert not [one.cmdline() for one in psutil.wait_procs(family, timeout=20)[1] if lives(one)]
        assert "BrokenPipe" not in (tmp_path / "output").read_text()
    finally:
        if process.poll() is None:
            services.end_family(psutil.Process(process.pid))
            process.wait()  # a child that is not waited for is a warning in a later test
