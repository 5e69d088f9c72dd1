"""A local registry as it is read: by whoever may only read, wherever it lies, and beside other programs' models."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import versions as made
from unprivileged import unprivileged
from workspaces import runtime_in

from agepipe.config.runtime import Runtime
from agepipe.config.stages import ReleaseSettings
from agepipe.core.errors import ConfigError, ModelError, TrackingError
from agepipe.registry import lookup, register, store, tables, tracking


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A folder with a store of two versions of `agepipe-sample`, a champion and a challenger."""
    home = tmp_path_factory.mktemp("kept")
    shutil.copytree(empty_store, home / "mlruns")
    for sharpness, decide in ((60.0, made.better), (30.0, made.worse)):
        model = made.model(home, sharpness)
        register.register(
            model, made.judged(model), ReleaseSettings(model="agepipe-sample"), runtime_in(home), decide=decide
        )  # fmt: skip
    return home


@pytest.fixture
def copy(kept: Path, tmp_path: Path) -> Path:
    """The same, moved to another place."""
    shutil.copytree(kept, tmp_path / "copy")
    return tmp_path / "copy"


def test_it_reads_what_mlflow_has_written(kept: Path) -> None:
    runtime = runtime_in(kept)
    client = tracking.client(runtime)
    found = lookup.versions("agepipe-sample", runtime)
    told = {int(one.version): one for one in client.search_model_versions("name = 'agepipe-sample'")}
    assert [version.number for version in found] == [2, 1]
    for version in found:
        one = told[version.number]
        assert (version.source, version.run, version.tags) == (one.source, one.run_id, one.tags)
    assert [version.aliases for version in found] == [("challenger",), ("champion",)]


def test_a_store_that_was_moved_is_read_where_it_lies(kept: Path, copy: Path) -> None:
    """A disk of a camera machine may be mounted anywhere, and read-only, so that no address in it can be rewritten."""
    (copy / "mlruns" / "mlflow.db").chmod(0o444)
    model = lookup.resolve("champion", runtime_in(copy))
    assert model.folder.is_relative_to(copy)
    run = model.run or ""
    assert lookup.resolve(run, runtime_in(copy)).digest == model.digest


def test_reading_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=str(tmp_path / "mlruns")):
        lookup.resolve("champion", runtime_in(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_predicting_needs_a_store_that_can_be_read_and_no_more(journal: str, copy: Path) -> None:
    with closing(sqlite3.connect(copy / "mlruns" / "mlflow.db")) as database:
        database.execute(f"PRAGMA journal_mode = {journal}")
    for path in (copy / "mlruns", copy / "mlruns" / "mlflow.db", copy):
        path.chmod(path.stat().st_mode & 0o555)
    code = "from pathlib import Path; from agepipe.registry import lookup; from agepipe.config.runtime import Runtime\n"
    code += f"w = Runtime(workspace='{copy}/none', tracking='sqlite:///{copy}/mlruns/mlflow.db')\n"
    code += "print(lookup.resolve('champion', w).digest)\n"
    # with nothing deployed yet
    code += "from agepipe.serving.model_source import DeployedModel\nprint(DeployedModel(w).title)"
    done = subprocess.run([*unprivileged(), sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1] == "agepipe-sample version 1"
    assert sorted(path.name for path in copy.iterdir()) == ["bundle-30.0-True", "bundle-60.0-True", "mlruns"]


def test_a_locked_database_is_one_error_in_time(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(tables, "PATIENCE", 0.2)
    monkeypatch.setattr(store, "PATIENCE", 0.2)
    path, start = copy / "mlruns" / "mlflow.db", time.monotonic()
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for work in (lambda: lookup.resolve("champion", runtime_in(copy)), lambda: tracking.prepare(runtime_in(copy))):
            with pytest.raises(TrackingError, match="locked"):
                work()
        with pytest.raises(TrackingError, match="locked"):
            store.check_writable(path)
    assert time.monotonic() - start < 5
    assert tables.PATIENCE < 10


def test_a_change_that_was_cut_off_is_not_read_as_if_it_were_whole(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = copy / "mlruns" / "mlflow.db"
    path.with_name("mlflow.db-journal").write_bytes(b"half")
    assert tables.unfinished(path)
    assert not tables.unfinished(copy / "other.db")


def test_what_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").write_text("not a database at all, whatever its name says" * 40)
    with pytest.raises(TrackingError, match=r"mlflow\.db"):
        lookup.resolve("champion", runtime_in(tmp_path))
    with pytest.raises(ConfigError, match="mlruns"):
        lookup.resolve("champion", Runtime(tracking=f"sqlite:///{tmp_path}/mlruns"))


def test_other_programs_models_do_not_hide_ours(copy: Path) -> None:
    runtime = runtime_in(copy)
    tracking.client(runtime).create_registered_model("churn-model")
    assert lookup.named("", runtime) == "agepipe-sample"
    assert lookup.resolve("champion", runtime).digest
    with pytest.raises(ModelError, match="'nope'"):
        lookup.resolve("nope", runtime)


def test_several_models_of_ours_are_named_in_the_error(copy: Path) -> None:
    runtime = runtime_in(copy)
    model = made.model(copy, 45.0)
    register.register(model, made.judged(model), ReleaseSettings(model="agepipe-laptop"), runtime)
    with pytest.raises(ModelError) as told:
        lookup.resolve("champion", runtime)
    assert all(word in str(told.value) for word in ("--name", "agepipe-laptop", "agepipe-sample"))
    found = lookup.of_digest(model.digest, "", runtime)
    assert found is not None and found.name == "agepipe-laptop"


@pytest.mark.parametrize("name", ["100%25 of it", "a?b#c", "ümlaut: x"])
def test_any_letter_may_stand_in_the_path(name: str, tmp_path: Path, empty_store: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(empty_store, folder / "mlruns")
    runtime = runtime_in(folder)
    run = tracking.client(runtime).create_run(tracking.prepare(runtime))
    tracking.client(runtime).log_text(run.info.run_id, "text", "note.txt")
    kept = tables.run(folder / "mlruns" / "mlflow.db", run.info.run_id)
    assert kept is not None
    assert list((folder / "mlruns" / "artifacts").rglob("note.txt"))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_settings_of_another_mlflow_reach_no_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in store.FOREIGN:
        monkeypatch.setenv(name, "sqlite:////elsewhere/other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    runtime = runtime_in(tmp_path)
    ours = {name: value for name, value in store.environ(runtime).items() if name.startswith("MLFLOW_")}
    here = {"MLFLOW_TRACKING_URI": store.address(runtime), "MLFLOW_REGISTRY_URI": store.address(runtime)}
    assert {name: ours[name] for name in here} == here
    assert not set(ours) & set(store.FOREIGN) - set(here)
    assert ours["MLFLOW_TRACKING_USERNAME"] == "me" == os.environ["MLFLOW_TRACKING_USERNAME"]
