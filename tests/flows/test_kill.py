"""`kill -9` at three moments of one pipeline, which is then run to the end: as if nothing had happened.

The kills come one after the other in the same workspace, each on the run that goes on after the one before. An ingest
that is killed is in `test_ingest_resume.py`.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl
import psutil
import pytest
from commands import AGEPIPE, lives
from workspaces import runtime_in

from agepipe.core.artifacts import MANIFEST, read_manifest
from agepipe.model import bundle
from agepipe.model.bundle_files import read_curves
from agepipe.registry import tracking

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CHECKPOINT = "checkpoint.pt"
OVERRIDES = (
    "ingest.size=36",
    "learn.size=32",
    "learn.network=shufflenet_v2_x0_5",
    "learn.batch=32",
    "learn.epochs=2",
    "search.grid={lr=[0.003,0.01]}",
    "search.folds=2",
    "final.epochs=3",
    "final.metric=loss",  # so that the epoch kept is one after the kill, not the first of several ties
    "evaluate.draws=200",
)
CHILDREN_LIMIT = 15.0
"""Seconds that children may take to notice that their parent is dead."""


class Moment(NamedTuple):
    """When to kill: what the workspace must hold."""

    name: str
    reached: Callable[[Path], bool]


def finished(workspace: Path, stage: str) -> list[Path]:
    """Manifests of a stage's finished results; a draft's folder begins with a dot."""
    return [path for path in workspace.glob(f"{stage}/*/{MANIFEST}") if not path.parent.name.startswith(".")]


def under_way(workspace: Path, stage: str) -> bool:
    """Whether an unfinished result of the stage has a checkpoint."""
    done = {f".{path.parent.name}-progress" for path in finished(workspace, stage)}
    return any(path.parent.name not in done for path in workspace.glob(f"{stage}/.*-progress/**/{CHECKPOINT}"))


def searching(workspace: Path) -> bool:
    return bool(finished(workspace, "trials")) and under_way(workspace, "trials")


def training(workspace: Path) -> bool:
    return under_way(workspace, "models")


def evaluating(workspace: Path) -> bool:
    return any(workspace.glob("records/train-*")) and not finished(workspace, "evaluations")


MOMENTS = (
    Moment("search", searching),
    Moment("training", training),
    Moment("evaluation", evaluating),
)


def start(folder: Path, drawn: Path) -> subprocess.Popen[bytes]:
    from prefect.settings import PREFECT_API_URL

    words = [*OVERRIDES, "--data", str(drawn), "--device", "cpu", "--workers", "1", "--threads", "1"]
    words += ["--workspace", str(folder / "workspace"), "--tracking", f"sqlite:///{folder}/mlruns/mlflow.db"]
    environ = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value()), "OMP_NUM_THREADS": "1"}
    folder.mkdir(exist_ok=True)
    with (folder / "output").open("ab") as output:
        return subprocess.Popen(
            [AGEPIPE, "run", "sample", *words], cwd=folder, env=environ, stdout=output, stderr=subprocess.STDOUT
        )


def run_to_the_end(folder: Path, drawn: Path) -> None:
    assert start(folder, drawn).wait(timeout=180) == 0, (folder / "output").read_text()


def kill_at(moment: Moment, folder: Path, drawn: Path) -> None:
    """Start, wait for the moment, kill the main process alone, and see that its children end by themselves."""
    process = start(folder, drawn)
    while not moment.reached(folder / "workspace"):
        assert process.poll() is None, f"ended before {moment.name}: {(folder / 'output').read_text()}"
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)  # so that no child starts between the listing and the kill
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    limit = time.monotonic() + CHILDREN_LIMIT
    while left := [child for child in children if lives(child)]:
        assert time.monotonic() < limit, f"{moment.name}: {[child.cmdline() for child in left]} live on"
        time.sleep(0.05)


def the_model(folder: Path) -> Path:
    (manifest,) = finished(folder / "workspace", "models")
    return manifest.parent


def test_killed_three_times_it_ends_with_the_same_model(prefect_server: None, drawn: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_to_the_end(whole, drawn)

    kept: dict[Path, int] = {}
    for moment in MOMENTS:
        kill_at(moment, killed, drawn)
        assert kept.items() <= stamps(killed).items()
        kept = stamps(killed)
        if moment.name == "search":
            assert 1 <= len(kept) < 4
    run_to_the_end(killed, drawn)

    assert bundle.digest(the_model(killed)) == bundle.digest(the_model(whole))
    assert the_model(killed).name == the_model(whole).name
    assert curves(killed).equals(curves(whole))
    assert best_epoch(killed) > 1, "the kept weights are older than the kill, so they prove nothing"
    assert len(kept) == 4
    assert stamps(killed) == kept
    assert_tidy(killed)
    assert_tidy(whole)


def curves(folder: Path) -> pl.DataFrame:
    """Figures of every epoch of the final training, without how long it took."""
    return read_curves(the_model(folder)).drop("seconds")


def best_epoch(folder: Path) -> int:
    manifest = read_manifest(the_model(folder))
    assert manifest is not None
    return int(manifest["result"]["epochs"])


def stamps(folder: Path) -> dict[Path, int]:
    """When each finished trial was written, ns."""
    return {path: path.stat().st_mtime_ns for path in finished(folder / "workspace", "trials")}


def assert_tidy(folder: Path) -> None:
    """No run is left running, one version is registered, and no work in progress lies about."""
    runtime = runtime_in(folder)
    client = tracking.client(runtime)
    runs = client.search_runs([tracking.prepare(runtime)], max_results=1000)
    assert [run.info.run_name for run in runs if run.info.status == "RUNNING"] == []
    assert len(client.search_model_versions("name = 'agepipe-sample'")) == 1
    assert not list(runtime.workspace.glob("*/.*-progress"))
