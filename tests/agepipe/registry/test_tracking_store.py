"""The tracking store: where it lies, what is refused, and what becomes of one that was moved or copied."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from agepipe.config.runtime import Runtime
from agepipe.core.errors import ConfigError, TrackingError
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
runtime = Runtime(tracking=sys.argv[1])
tracking.prepare(runtime)
tracking.client(runtime).log_text(sys.argv[2], "copy", "a.txt")
"""


def python(code: str, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_two_processes_prepare_a_fresh_store_at_once_and_say_nothing(runtime: Runtime) -> None:
    both = [python(PREPARE, runtime.tracking) for _ in range(2)]
    answers = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert answers[0] == answers[1] == (tracking.prepare(runtime) + "\n", "")


def test_a_new_store_lies_in_its_folder_whatever_that_is_called_and_noruntime_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, folder = tmp_path / "work", tmp_path / "my runs #1 50%"
    work.mkdir()
    monkeypatch.chdir(work)
    with tracking.run(Runtime(tracking=f"sqlite:///{folder}/mlflow.db"), kind="train", name="r", key="k") as run:
        run.text("hello", "notes/a.txt")
    assert (folder / "artifacts" / run.run_id / "artifacts/notes/a.txt").read_text() == "hello"
    assert list(work.iterdir()) == []


def test_a_relative_address_is_the_same_store_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert store.address(Runtime(tracking="sqlite:///m/mlflow.db")) == f"sqlite:///{tmp_path}/m/mlflow.db"


def test_an_address_of_neither_kind_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="'mlruns' is not supported; --tracking, AGEPIPE_TRACKING and MLFLOW_TRACKING_URI take"
    ):
        tracking.prepare(Runtime(tracking="mlruns"))


def test_a_server_that_does_not_answer_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"no MLflow server answers at http://127\.0\.0\.1:9"):
        tracking.prepare(Runtime(tracking="http://127.0.0.1:9", workspace=tmp_path))


def test_a_database_that_another_mlflow_has_changed_is_refused(tracked: Runtime, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "mlruns" / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'from_the_future'")
    with pytest.raises(TrackingError, match="another version of MLflow"):
        tracking.prepare(tracked)


def test_a_file_that_is_no_database_is_refused(runtime: Runtime) -> None:
    path = store.database(runtime)
    assert path is not None
    path.parent.mkdir()
    path.write_bytes(b"not a database at all, by any means" * 100)
    with pytest.raises(TrackingError, match="not a database"):
        tracking.prepare(runtime)


def test_a_deleted_experiment_is_named_with_the_way_to_bring_it_back(tracked: Runtime) -> None:
    experiment = tracking.prepare(tracked)
    client = tracking.client(tracked)
    client.delete_experiment(experiment)
    with pytest.raises(TrackingError, match=f"'agepipe'.*restore -x {experiment}"):
        tracking.prepare(tracked)
    assert tracking.prepare(tracked, reading=True) == experiment
    client.restore_experiment(experiment)
    assert tracking.prepare(tracked) == experiment


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
