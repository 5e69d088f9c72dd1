"""Two copies of one folder, used side by side: each ends as if the other did not exist."""

import hashlib
import re
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from commands import AGEPIPE, environ
from workspaces import runtime_in

from agepipe.registry import lookup, tracking

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

RUN = (
    "run", "sample", "source.sample_count=420", "ingest.size=36", "learn.size=32", "learn.network=shufflenet_v2_x0_5",
    "learn.batch=32", "learn.epochs=1", "search.grid={lr=[0.003,0.01]}", "search.folds=2", "final.epochs=2",
    "evaluate.draws=200", "--device", "cpu", "--workers", "1", "--threads", "1",
)  # fmt: skip
STORAGE_KEY = rb'"storage_key": ?"[^"]*"'
"""Where Prefect wrote a record for the first time; nothing reads it."""


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start a command, with a temporary Prefect server of its own that may take long beside another one."""
    variables = {**environ(), "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "600"}
    output = subprocess.PIPE
    return subprocess.Popen([AGEPIPE, *words], cwd=folder, env=variables, stdout=output, stderr=output, text=True)


def both(folders: tuple[Path, ...], *words: str) -> list[str]:
    """What a command says in folders in which it is given at the same time."""
    running = [start(folder, *words) for folder in folders]
    said = [one.communicate(timeout=900) for one in running]
    assert [one.returncode for one in running] == [0] * len(running), said
    return [out for out, _ in said]


def content(folder: Path) -> dict[str, str]:
    """Every file, dotted ones included."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def results(folder: Path) -> set[str]:
    """Finished results and records; names follow from what they are."""
    return {str(path.relative_to(folder)) for path in (folder / "workspace").glob("[!p]*/*")}


def mentions(folder: Path, other: Path) -> list[str]:
    """What leads from one folder to another: files of the workspace, and cells of MLflow's database."""
    found = [
        str(path)
        for place in ("workspace", "mlruns")
        for path in (folder / place).rglob("*")
        if path.is_file() and path.parent.name != "prefect" and path.suffix != ".db"
        and f"{other}/".encode() in re.sub(STORAGE_KEY, b"", path.read_bytes())
    ]  # fmt: skip
    with closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as connection:
        return found + [line for line in connection.iterdump() if f"{other}/" in line]


def test_copies_of_a_folder_have_no_part_in_one_another(tmp_path: Path) -> None:
    base, one, two = (tmp_path / name for name in ("base", "one", "two"))
    base.mkdir()
    both((base,), *RUN)
    for copy in (one, two):
        shutil.copytree(base, copy)
    before = content(base)
    said = both((one, two), *RUN, "--refresh", "train")
    assert content(base) == before
    assert results(one) == results(two) == results(base)
    for folder, others, words in ((one, (base, two), said[0]), (two, (base, one), said[1])):
        assert f"{folder}/workspace/evaluations/" in words
        assert [mentions(folder, other) for other in others] == [[], []]
        runtime = runtime_in(folder)
        runs = tracking.client(runtime).search_runs([tracking.prepare(runtime)], max_results=1000)
        assert {run.info.status for run in runs} == {"FINISHED"}
        champion = lookup.champion("agepipe-sample", runtime)
        assert champion is not None
        assert lookup.model_of(champion, runtime).folder.is_relative_to(folder)
