"""Runs in a real SQLite store: opened, resumed, ended, swept and moved, from threads and processes."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import polars as pl
import pytest

from agepipe.config.runtime import Runtime
from agepipe.config.stages import LearnSettings
from agepipe.core.provenance import environment, gone, process
from agepipe.data.records import Rows
from agepipe.model.ages import AgeRanges
from agepipe.registry import tracking

ABANDON = """
import os, signal, sys
from agepipe.registry import tracking
from agepipe.config.runtime import Runtime
runtime = Runtime(tracking=sys.argv[1])
with (
    tracking.run(runtime, kind="train", name="killed", key="k", params={"lr": 1}) as one,
    tracking.run(runtime, kind="train", name="killed", key="l") as two,
):
    one.metrics({"loss": 2.0}, 0)
    print(one.run_id, two.run_id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def python(code: str, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def status(runtime: Runtime, run_id: str) -> str:
    return str(tracking.client(runtime).get_run(run_id).info.status)


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    table = tmp_path / "labels" / "rows.parquet"
    table.parent.mkdir()
    pl.DataFrame({"index": [0, 1], "digest": ["a", "b"], "label": [0, 1]}).write_parquet(table)
    ranges = AgeRanges.of(("1-50", "over50"))
    return Rows(digest="d" * 64, name="two", table=table, pixels=tmp_path / "p.npy", size=32, count=2, ranges=ranges)


def test_a_run_holds_what_was_logged(tracked: Runtime, rows: Rows) -> None:
    params = {"learn": LearnSettings(), "grid": {}}
    with (
        tracking.run(tracked, kind="pipeline", name="all", key="p") as parent,
        tracking.run(
            tracked, kind="trial", name="t", key="k", parent=parent.run_id, params=params, tags={"fold": 1}
        ) as run,
    ):
        run.metrics({"loss": 2, "mae": 7.5}, 0)
        run.metrics({"loss": 1, "mae": 6.5}, 1)
        run.params({"long": "x" * 9000})
        run.description("What it is.")
        run.dataset(rows, "training")
        run.artifacts(rows.table.parent, "tables")
    client = tracking.client(tracked)
    found = client.get_run(run.run_id)
    assert found.data.params["learn.augment.flip"] == "0.5"
    assert found.data.params["grid"] == "{}"
    assert len(found.data.params["long"]) == 6000
    assert [(point.step, point.value) for point in client.get_metric_history(run.run_id, "mae")] == [(0, 7.5), (1, 6.5)]
    assert found.data.tags["mlflow.parentRunId"] == parent.run_id
    assert found.data.tags["mlflow.note.content"] == "What it is."
    assert found.data.tags["fold"] == "1"
    assert found.inputs is not None
    (dataset,) = [item.dataset for item in found.inputs.dataset_inputs]
    assert dataset.profile is not None
    assert (dataset.name, dataset.digest) == ("two", "d" * 32)
    assert json.loads(dataset.profile)["num_rows"] == 2
    assert "tables/rows.parquet" in {item.path for item in client.list_artifacts(run.run_id, "tables")}
    assert found.info.status == "FINISHED"


def test_an_error_ends_the_run_as_failed_with_its_message(tracked: Runtime) -> None:
    with pytest.raises(ValueError, match="loss"), tracking.run(tracked, kind="train", name="t", key="k") as run:
        raise ValueError("the loss is not finite")
    assert status(tracked, run.run_id) == "FAILED"
    tags = tracking.client(tracked).get_run(run.run_id).data.tags
    assert tags["agepipe.error"] == "ValueError('the loss is not finite')"


def test_an_interruption_ends_the_run_as_killed(tracked: Runtime) -> None:
    with pytest.raises(KeyboardInterrupt), tracking.run(tracked, kind="train", name="t", key="k") as run:
        raise KeyboardInterrupt
    assert status(tracked, run.run_id) == "KILLED"


def test_an_interruption_ends_what_is_nested_too_and_a_failure_does_not(tracked: Runtime) -> None:
    """A process that computed for an interrupted run may have been ended before it could say so."""
    client, states = tracking.client(tracked), []
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error), tracking.run(tracked, kind="pipeline", name="p", key=str(error)) as parent:
            tags = {"mlflow.parentRunId": parent.run_id}
            nested = client.create_run(tracking.prepare(tracked), tags=tags).info.run_id
            other = client.create_run(tracking.prepare(tracked)).info.run_id
            raise error
        states.append([status(tracked, run) for run in (parent.run_id, nested, other)])
    assert states == [["KILLED", "KILLED", "RUNNING"], ["FAILED", "RUNNING", "RUNNING"]]


def test_deleted_runs_are_not_taken_up_again(tracked: Runtime) -> None:
    with pytest.raises(OSError), tracking.run(tracked, kind="train", name="t", key="k") as run:
        raise OSError
    tracking.client(tracked).delete_run(run.run_id)
    with tracking.run(tracked, kind="train", name="t", key="k", after=run.run_id) as again:
        again.metrics({"loss": 1.0})
    assert again.run_id != run.run_id
    assert tracking.sweep(tracked) == []


def test_a_failed_run_is_taken_up_again_and_a_finished_one_is_not(tracked: Runtime) -> None:
    with (
        pytest.raises(OSError, match="disk"),
        tracking.run(tracked, kind="train", name="t", key="k", params={"lr": 1}) as a,
    ):
        raise OSError("disk full")
    with tracking.run(tracked, kind="train", name="t", key="k", params={"lr": 2, "wd": 3}) as b:
        assert status(tracked, b.run_id) == "RUNNING"
    with tracking.run(tracked, kind="train", name="t", key="k") as c:
        pass
    with tracking.run(tracked, kind="evaluate", name="t", key="k") as d:
        pass
    assert (a.run_id, b.resumed) == (b.run_id, True)
    assert len({b.run_id, c.run_id, d.run_id}) == 3
    found = tracking.client(tracked).get_run(b.run_id)
    assert (found.info.status, found.data.tags["agepipe.error"]) == ("FINISHED", "")
    assert found.data.params == {"lr": "1", "wd": "3"}


def test_a_run_that_another_is_at_work_on_is_left_alone(tracked: Runtime) -> None:
    with (
        tracking.run(tracked, kind="train", name="t", key="k") as first,
        tracking.run(tracked, kind="train", name="t", key="k") as second,
    ):
        assert first.run_id != second.run_id


@pytest.mark.slow
def test_runs_of_a_killed_process_are_swept_and_resumed_or_resumed_without_a_sweep(tracked: Runtime) -> None:
    with tracking.run(tracked, kind="pipeline", name="mine", key="mine") as mine:
        swept, other = python(ABANDON, tracked.tracking).communicate(timeout=120)[0].split()
        assert [status(tracked, one) for one in (swept, other)] == ["RUNNING"] * 2
        with tracking.run(tracked, kind="train", name="again", key="l") as run:
            assert run.run_id == other
        assert tracking.sweep(tracked) == [swept]
        assert status(tracked, swept) == "KILLED"
        assert status(tracked, mine.run_id) == "RUNNING"
    with tracking.run(tracked, kind="train", name="again", key="k") as run:
        run.metrics({"loss": 1.0}, 1)
    assert run.run_id == swept
    history = tracking.client(tracked).get_metric_history(swept, "loss")
    assert [point.value for point in history] == [2.0, 1.0]


def test_only_a_process_that_surely_ended_is_gone() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host, pid, started = process().rsplit(":", 2)
    assert not gone(process())
    assert gone(f"{host}:{ended.pid}:{started}")
    assert gone(f"{host}:{pid}:1.0")
    assert not gone(f"elsewhere:{ended.pid}:{started}")


def test_threads_that_start_at_once_log_to_their_own_runs(tracked: Runtime, rows: Rows) -> None:
    together = threading.Barrier(4)
    ids: dict[int, str] = {}

    def work(number: int) -> None:
        with tracking.run(tracked, kind="trial", name=str(number), key=str(number)) as run:
            together.wait()
            run.dataset(rows, "search")
            for step in range(3):
                run.metrics({"loss": number}, step)
            ids[number] = run.run_id

    tracking.prepare(tracked)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, run_id in ids.items():
        assert {p.value for p in tracking.client(tracked).get_metric_history(run_id, "loss")} == {number}
    assert len(set(ids.values())) == 4


def test_the_load_of_the_machine_is_logged(tracked: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        tracking.run(tracked, kind="train", name="t", key="k") as run,
        tracking.system_metrics(tracked, run.run_id, 0.05),
    ):
        threading.Event().wait(1.0)
    metrics = tracking.client(tracked).get_run(run.run_id).data.metrics
    assert metrics["system/system_memory_usage_megabytes"] > 0
    assert "system/cpu_utilization_percentage" in metrics


def test_the_environment_names_code_packages_and_machine() -> None:
    found = environment()
    assert found["version.mlflow"].startswith("3.")
    assert found["version.agepipe"]
    assert found["cores"] == str(os.cpu_count())
    if (Path(tracking.__file__).parents[2] / ".git").exists():
        assert len(found["git.commit"]) == 40
        assert found["git.dirty"] in {"true", "false"}


def test_importing_the_module_does_not_import_mlflow() -> None:
    code = "import sys, agepipe.registry.tracking, agepipe.registry.register\n"
    code += "print('mlflow' in sys.modules, 'pandas' in sys.modules)"
    assert python(code).communicate(timeout=60)[0] == "False False\n"
