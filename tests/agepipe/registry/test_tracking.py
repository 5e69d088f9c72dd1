"""Runs in a real SQLite store: opened, resumed, ended, swept and moved, from threads and processes."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest

from agepipe.config.runtime import Runtime
from agepipe.config.stages import LearnSettings
from agepipe.core.errors import ConfigError, TrackingError
from agepipe.core.provenance import environment, gone, process
from agepipe.data.records import Rows
from agepipe.model.ages import AgeRanges
from agepipe.registry import store, tracking

PREPARE = """
import sys
from agepipe.registry import tracking
from agepipe.config.runtime import Runtime
print(tracking.prepare(Runtime(tracking=sys.argv[1])))
"""

LOG = """
import sys
from agepipe.registry import tracking
from agepipe.config.runtime import Runtime
where = Runtime(tracking=sys.argv[1])
tracking.prepare(where)
tracking.client(where).log_text(sys.argv[2], "copy", "a.txt")
"""

ABANDON = """
import os, signal, sys
from agepipe.registry import tracking
from agepipe.config.runtime import Runtime
with tracking.run(Runtime(tracking=sys.argv[1]), kind="train", name="killed", key="k", params={"lr": 1}) as run:
    run.metrics({"loss": 2.0}, 0)
    print(run.run_id, flush=True)
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


@pytest.mark.slow
def test_two_processes_prepare_a_fresh_store_at_once_and_say_nothing(runtime: Runtime) -> None:
    both = [python(PREPARE, runtime.tracking) for _ in range(2)]
    answers = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert answers[0] == answers[1] == (tracking.prepare(runtime) + "\n", "")


def test_artifacts_lie_beside_the_database_whatever_its_folder_is_called(tmp_path: Path) -> None:
    runtime = Runtime(tracking=f"sqlite:///{tmp_path}/my runs #1 50%/mlflow.db")
    with tracking.run(runtime, kind="train", name="r", key="k") as run:
        run.text("hello", "notes/a.txt")
    assert (tmp_path / "my runs #1 50%" / "artifacts" / run.run_id / "artifacts/notes/a.txt").read_text() == "hello"


def test_a_relative_address_is_the_same_store_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert store.address(Runtime(tracking="sqlite:///m/mlflow.db")) == f"sqlite:///{tmp_path}/m/mlflow.db"


def test_preparing_leaves_nothing_in_the_working_folder(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    tracking.prepare(runtime)
    assert list(work.iterdir()) == []


def test_an_address_of_neither_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'mlruns' is not supported; write sqlite:///PATH"):
        tracking.prepare(Runtime(tracking="mlruns"))


def test_a_server_that_does_not_answer_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"no MLflow server answers at http://127\.0\.0\.1:9"):
        tracking.prepare(Runtime(tracking="http://127.0.0.1:9", workspace=tmp_path))


def test_a_database_that_another_mlflow_has_changed_is_refused(runtime: Runtime) -> None:
    other = runtime.model_copy(update={"tracking": runtime.tracking.replace("mlflow.db", "newer.db")})
    tracking.prepare(runtime)
    path, newer = store.database(runtime), store.database(other)
    assert path is not None
    assert newer is not None
    shutil.copy(path, newer)
    with sqlite3.connect(newer) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'from_the_future'")
    connection.close()
    with pytest.raises(TrackingError, match="another version of MLflow"):
        tracking.prepare(other)


def test_a_file_that_is_no_database_is_refused(runtime: Runtime) -> None:
    path = store.database(runtime)
    assert path is not None
    path.parent.mkdir()
    path.write_bytes(b"not a database at all, by any means" * 100)
    with pytest.raises(TrackingError, match="not a database"):
        tracking.prepare(runtime)


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


def test_a_deleted_experiment_is_named_with_the_way_to_bring_it_back(tracked: Runtime) -> None:
    experiment = tracking.prepare(tracked)
    client = tracking.client(tracked)
    client.delete_experiment(experiment)
    with pytest.raises(TrackingError, match=f"'agepipe'.*restore -x {experiment}"):
        tracking.prepare(tracked)
    assert tracking.prepare(tracked, reading=True) == experiment
    client.restore_experiment(experiment)
    assert tracking.prepare(tracked) == experiment


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


def test_a_killed_process_leaves_a_run_that_is_swept_and_resumed(tracked: Runtime) -> None:
    with tracking.run(tracked, kind="pipeline", name="mine", key="mine") as mine:
        killed = python(ABANDON, tracked.tracking)
        run_id = killed.communicate(timeout=120)[0].strip()
        assert status(tracked, run_id) == "RUNNING"
        assert tracking.sweep(tracked) == [run_id]
        assert status(tracked, run_id) == "KILLED"
        assert status(tracked, mine.run_id) == "RUNNING"
    with tracking.run(tracked, kind="train", name="again", key="k") as run:
        run.metrics({"loss": 1.0}, 1)
    assert run.run_id == run_id
    history = tracking.client(tracked).get_metric_history(run_id, "loss")
    assert [point.value for point in history] == [2.0, 1.0]


def test_a_killed_run_is_resumed_without_a_sweep(tracked: Runtime) -> None:
    tracking.prepare(tracked)
    run_id = python(ABANDON, tracked.tracking).communicate(timeout=120)[0].strip()
    with tracking.run(tracked, kind="train", name="again", key="k") as run:
        assert run.run_id == run_id


def test_only_a_process_that_surely_ended_is_gone() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host, pid, started = process().rsplit(":", 2)
    assert not gone(process())
    assert gone(f"{host}:{ended.pid}:{started}")
    assert gone(f"{host}:{pid}:1.0")
    assert not gone(f"elsewhere:{ended.pid}:{started}")


def test_threads_that_start_at_once_log_to_their_own_runs(runtime: Runtime, rows: Rows) -> None:
    together = threading.Barrier(4)
    ids: dict[int, str] = {}

    def work(number: int) -> None:
        with tracking.run(runtime, kind="trial", name=str(number), key=str(number)) as run:
            together.wait()
            run.dataset(rows, "search")
            for step in range(3):
                run.metrics({"loss": number}, step)
            ids[number] = run.run_id

    tracking.prepare(runtime)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, run_id in ids.items():
        assert {p.value for p in tracking.client(runtime).get_metric_history(run_id, "loss")} == {number}
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


def test_a_store_that_was_moved_is_read_where_it_lies_now(tracked: Runtime, tmp_path: Path) -> None:
    with tracking.run(tracked, kind="train", name="t", key="k") as run:
        run.text("hello", "a.txt")
    old = store.database(tracked)
    assert old is not None
    shutil.move(old.parent, tmp_path / "archive")
    moved = Runtime(tracking=f"sqlite:///{tmp_path}/archive/mlflow.db", workspace=tracked.workspace)
    before = tracking.client(moved).get_run(run.run_id).info.artifact_uri
    assert str(old.parent) in before
    assert store.relocate(tmp_path / "archive" / "mlflow.db") >= 2
    assert store.relocate(tmp_path / "archive" / "mlflow.db") == 0
    path = tracking.client(moved).download_artifacts(run.run_id, "a.txt", str(tmp_path))
    assert Path(path).read_text() == "hello"
    with tracking.run(moved, kind="train", name="t", key="new") as new:
        new.text("more", "b.txt")
    assert (tmp_path / "archive/artifacts" / new.run_id / "artifacts/b.txt").exists()
    assert not old.parent.exists()


@pytest.mark.slow
def test_a_copied_store_keeps_to_its_own_artifacts(tracked: Runtime, tmp_path: Path) -> None:
    """The original is still there: nothing in the copy may lead to it, MLflow's own Default experiment included."""
    with tracking.run(tracked, kind="train", name="t", key="k") as run:
        run.text("original", "a.txt")
    client = tracking.client(tracked)
    with closing(sqlite3.connect(tmp_path / "mlruns" / "mlflow.db")) as connection, connection:
        connection.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", (f"{tmp_path}/mlruns/0",)
        )
    shutil.copytree(tmp_path / "mlruns", tmp_path / "copy" / "mlruns")
    copy = python(LOG, f"sqlite:///{tmp_path}/copy/mlruns/mlflow.db", run.run_id)  # MLflow remembers a run's folder
    assert copy.communicate(timeout=120)[1] == ""
    assert Path(client.download_artifacts(run.run_id, "a.txt")).read_text() == "original"
    with closing(sqlite3.connect(tmp_path / "copy" / "mlruns" / "mlflow.db")) as connection:
        said = "\n".join(connection.iterdump())
    assert f"{tmp_path}/mlruns" not in said


def test_preparing_a_moved_store_relocates_it(tracked: Runtime, tmp_path: Path) -> None:
    experiment = tracking.prepare(tracked)
    shutil.move(tmp_path / "mlruns", tmp_path / "archive")
    moved = Runtime(tracking=f"sqlite:///{tmp_path}/archive/mlflow.db")
    assert tracking.prepare(moved) == experiment
    location = tracking.client(moved).get_experiment(experiment).artifact_location
    assert location == (tmp_path / "archive" / "artifacts").as_uri()


@pytest.mark.parametrize("content", [None, b"no database, whatever its name says" * 40])
def test_what_cannot_be_relocated_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mlflow.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TrackingError, match=r"mlflow\.db: (there is no such file|not a database)"):
        store.relocate(path)


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
