"""Registered models found by every name, in copied workspaces and without their files; the champion's partition."""

import shutil
from pathlib import Path

import polars as pl
import pytest
from bundles import make_rows, seen
from versions import RELEASE, better, judged, model, put

from agepipe.config.base import changed
from agepipe.config.runtime import Runtime
from agepipe.config.stages import Config, SplitSettings
from agepipe.core.errors import ModelError, TrackingError
from agepipe.data.records import Partition
from agepipe.model import bundle
from agepipe.registry import lookup, register, store, tracking
from agepipe.training.warm_start import with_files


def split(folder: Path) -> Partition:
    development, test = make_rows(folder / "d", 20), make_rows(folder / "t", 10, seed=1)
    members = folder / "split" / "members.parquet"
    members.parent.mkdir(parents=True, exist_ok=True)
    seen(development).write_parquet(members)
    return Partition(
        digest="p" * 64, development=development, test=test, whole="w" * 64, settings=SplitSettings(), members=members
    )


def test_a_model_is_found_by_every_name(tracked: Runtime, tmp_path: Path) -> None:
    new = model(tmp_path)
    with tracking.run(tracked, kind="pipeline", name="p", key="p") as pipeline:
        with tracking.run(tracked, kind="train", name="t", key="t", parent=pipeline.run_id) as run:
            trained = new.model_copy(update={"run": run.run_id})
        register.register(trained, judged(new), RELEASE, tracked, parent=pipeline.run_id)
    names = ["champion", "@champion", "1", "models:/agepipe@champion", "models:/agepipe/1", "agepipe/1"]
    for name in [*names, run.run_id, pipeline.run_id]:
        found = lookup.resolve(name, tracked)
        assert (found.digest, found.epochs, found.metrics) == (new.digest, 7, {"accuracy": 0.5}), name
        assert bundle.digest(found.folder) == new.digest
    assert lookup.resolve(str(new.folder), tracked).digest == new.digest


def test_a_run_that_was_not_registered_gives_its_bundle(tracked: Runtime, tmp_path: Path) -> None:
    new = model(tmp_path)
    with tracking.run(tracked, kind="train", name="t", key="t") as run:
        run.artifacts(new.folder, "bundle")
    found = lookup.resolve(run.run_id, tracked)
    assert (found.digest, found.run) == (new.digest, run.run_id)


@pytest.mark.parametrize("name", ["nobody", "0" * 32, "7", "models:/other/1", str(Path("no") / "such" / "folder")])
def test_an_unknown_model_is_answered_with_what_there_is(tracked: Runtime, name: str) -> None:
    with pytest.raises(ModelError, match=r"agepipe run sample|not a reference"):
        lookup.resolve(name, tracked)


def test_files_that_were_changed_are_refused(tracked: Runtime, tmp_path: Path) -> None:
    put(tmp_path, tracked, 60.0)
    card = lookup.resolve("1", tracked).folder / bundle.CARD
    card.write_text(card.read_text(encoding="utf-8").replace("brightness", "other"), encoding="utf-8")
    with pytest.raises(ModelError, match="not those of version 1"):
        lookup.resolve("1", tracked)


def test_the_champions_partition_is_kept_where_its_folder_is_gone(tracked: Runtime, tmp_path: Path) -> None:
    new, drawn = model(tmp_path), split(tracked.workspace / "splits")
    assert lookup.partition("agepipe", tracked) is None
    register.register(new, judged(new), RELEASE, tracked, partition=drawn)
    assert lookup.partition("agepipe", tracked) == drawn
    assert lookup.partition_of(new, "", tracked) == drawn
    rows = pl.read_parquet(drawn.members)
    drawn.members.unlink()
    copy = lookup.partition("agepipe", tracked)
    assert copy is not None
    assert copy.digest == drawn.digest
    assert pl.read_parquet(copy.members).equals(rows)


def test_models_of_a_deleted_experiment_can_still_be_used(tracked: Runtime, tmp_path: Path) -> None:
    first = put(tmp_path, tracked, 60.0)
    put(tmp_path, tracked, 50.0)
    tracking.client(tracked).delete_experiment(tracking.prepare(tracked))
    assert lookup.resolve("1", tracked).digest == first.digest
    assert register.rollback("agepipe", tracked) == 1
    with pytest.raises(TrackingError, match="restore"):
        put(tmp_path, tracked, 40.0)


@pytest.mark.parametrize("earlier", [False, True])
def test_a_copied_workspace_reads_its_own_partition(tracked: Runtime, tmp_path: Path, earlier: bool) -> None:
    new, drawn = model(tmp_path), split(tracked.workspace / "splits")
    first = register.register(new, judged(new), RELEASE, tracked, partition=drawn)
    if earlier:  # versions before this one wrote absolute paths
        tracking.client(tracked).log_text(first.run or "", drawn.model_dump_json(), "partition/partition.json")
    shutil.copytree(tracked.workspace, tmp_path / "copy" / "workspace")
    shutil.copytree(tmp_path / "mlruns", tmp_path / "copy" / "mlruns")
    store = f"sqlite:///{tmp_path}/copy/mlruns/mlflow.db"
    copy = tracked.model_copy(update={"workspace": tmp_path / "copy" / "workspace", "tracking": store})
    found = lookup.partition("agepipe", copy)
    assert found is not None
    assert found.lies_in(copy.workspace)
    assert found.intact()
    assert lookup.resolve("champion", copy).folder.is_relative_to(tmp_path / "copy")
    shutil.rmtree(copy.workspace)
    absent = lookup.partition("agepipe", copy)
    assert absent is not None
    assert not absent.test.intact(), "those of the original are not its own"


@pytest.mark.slow
def test_a_server_keeps_runs_and_models_that_other_machines_fetch(
    mlflow_server: Runtime, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    new, drawn = model(tmp_path), split(tmp_path)
    with tracking.run(mlflow_server, kind="train", name="t", key="t", params={"lr": 1}) as run:
        run.metrics({"loss": 1.0}, 0)
        run.text("hello", "a.txt")
    trained = new.model_copy(update={"run": run.run_id})
    first = register.register(trained, judged(new), RELEASE, mlflow_server, partition=drawn)
    second = put(tmp_path, mlflow_server, 50.0)
    assert (first.alias, first.run, second.alias) == ("champion", run.run_id, "champion")
    drawn.members.unlink()
    elsewhere = mlflow_server.model_copy(update={"workspace": tmp_path / "elsewhere"})
    found = lookup.resolve("1", elsewhere)
    assert found.folder.is_relative_to(tmp_path / "elsewhere" / "models")
    assert found.digest == bundle.digest(found.folder) == new.digest
    assert lookup.resolve("1", elsewhere) == found
    assert register.rollback("agepipe", elsewhere) == 1
    fetched = lookup.partition("agepipe", elsewhere)
    assert fetched is not None
    assert fetched.members.is_relative_to(tmp_path / "elsewhere")
    assert fetched.members.is_file()
    assert store.database(mlflow_server) is None
    assert capfd.readouterr() == ("", "")


def test_a_version_can_be_started_from_and_its_lineage_lies_beside_its_weights(
    tracked: Runtime, tmp_path: Path
) -> None:
    one = model(tmp_path)
    with pytest.raises(ModelError, match="agepipe@champion' is not known"):
        lookup.weights_file("models:/agepipe@champion", tracked)
    (one.folder / bundle.WEIGHTS).write_bytes(b"weights")
    register.register(one, judged(one), RELEASE, tracked, decide=better)
    config = changed(Config(), {"learn.weights": "models:/agepipe@champion", "search.grid": {"lr": [0.1, 0.2]}})
    found = Path(with_files(config, lambda version: lookup.weights_file(version, tracked)).learn.weights)
    assert found.read_bytes() == b"weights"
    assert (found.parent / bundle.LINEAGE).is_file()
    assert one.folder not in found.parents, "the registry keeps its own"
    grid = {"weights": ["none", "models:/agepipe/1"]}
    searched = with_files(
        changed(Config(), {"search.grid": grid}), lambda version: lookup.weights_file(version, tracked)
    )
    assert searched.search.grid == {"weights": ("none", str(found))}


def test_a_version_without_weights_cannot_be_started_from(tracked: Runtime, tmp_path: Path) -> None:
    put(tmp_path, tracked, 60.0)
    with pytest.raises(ModelError, match=r"learn\.weights: models:/agepipe/1 was registered without its network\.pt"):
        lookup.weights_file("models:/agepipe/1", tracked)
