"""Versions in a real registry: registered once, promoted with a reason, found by every name, fetched from a server."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
from bundles import make_rows, seen
from versions import RELEASE, Verdict, better, histories, judged, model, put, standing, worse

from agepipe.config.base import changed
from agepipe.config.runtime import Runtime
from agepipe.config.stages import Config, SplitSettings
from agepipe.core.errors import ModelError, TrackingError
from agepipe.data.records import Partition
from agepipe.model import bundle
from agepipe.model.records import Model
from agepipe.registry import lookup, register, store, tracking
from agepipe.training.warm_start import with_files

MENTION = re.compile(r"(^|\s)@[a-z\d]", re.IGNORECASE | re.MULTILINE)
"""What MLflow's pages make a link to somebody's account at GitHub of."""


def split(folder: Path) -> Partition:
    development, test = make_rows(folder / "d", 20), make_rows(folder / "t", 10, seed=1)
    members = folder / "split" / "members.parquet"
    members.parent.mkdir(parents=True, exist_ok=True)
    seen(development).write_parquet(members)
    return Partition(
        digest="p" * 64, development=development, test=test, whole="w" * 64, settings=SplitSettings(), members=members
    )


def test_the_first_version_is_champion_and_says_what_it_is(tracked: Runtime, tmp_path: Path) -> None:
    first = put(tmp_path, tracked, 60.0, worse)
    assert (first.version, first.alias, first.reason) == (
        1, "champion", "First version, so it is the champion.",
    )  # fmt: skip
    found = lookup.champion("agepipe", tracked)
    assert found is not None
    assert found.digest == first.digest
    assert found.tags["test.macro_recall"] == "0.4321 (0.4 to 0.46)"
    assert found.tags["test.mae"] == "5"
    assert found.tags["evaluation.digest"] == "e" * 64
    assert found.tags["lineage"] == "known"
    version = tracking.client(tracked).get_model_version("agepipe", "1")
    assert version.description == first.reason


def test_a_model_is_registered_once(tracked: Runtime, tmp_path: Path) -> None:
    first = put(tmp_path, tracked, 60.0)
    assert put(tmp_path, tracked, 60.0, worse) == first
    assert len(lookup.versions("agepipe", tracked)) == 1


def test_a_better_one_replaces_the_champion_and_a_worse_one_does_not(tracked: Runtime, tmp_path: Path) -> None:
    shown: list[Model] = []

    def decide(champion: Model) -> Verdict:
        shown.append(champion)
        return Verdict(champion.epochs == 7, "Promoted: it is better.")

    first = put(tmp_path, tracked, 60.0)
    second = put(tmp_path, tracked, 50.0, decide)
    third = put(tmp_path, tracked, 40.0, worse)
    assert [item.alias for item in (first, second, third)] == ["champion", "champion", "challenger"]
    assert (shown[0].digest, bundle.digest(shown[0].folder)) == (first.digest, first.digest)
    three, two, one = lookup.versions("agepipe", tracked)
    assert (one.alias, two.alias, three.alias) == ("retired", "champion", "challenger")
    assert two.replaces == 1
    assert one.tags["agepipe.replaced_by"] == "version 2: Promoted: it is better."
    assert three.record().reason == "Not promoted: worse."
    assert put(tmp_path, tracked, 60.0).alias == "retired"


def test_without_a_comparison_nothing_is_promoted(tracked: Runtime, tmp_path: Path) -> None:
    put(tmp_path, tracked, 60.0)
    assert put(tmp_path, tracked, 50.0, None).alias == "challenger"


def test_a_model_of_unknown_lineage_is_never_promoted_by_itself(tracked: Runtime, tmp_path: Path) -> None:
    imported = model(tmp_path, known=False)
    first = register.register(imported, judged(imported), RELEASE, tracked, decide=better)
    assert first.alias == "challenger"
    assert "nobody knows what it was trained on" in first.reason
    assert lookup.champion("agepipe", tracked) is None
    assert register.promote("agepipe", 1, "Measured by hand.", tracked).alias == "champion"


def test_an_evaluation_of_another_model_is_refused(tracked: Runtime, tmp_path: Path) -> None:
    mine, other = model(tmp_path), model(tmp_path, 50.0)
    with pytest.raises(ModelError, match=f"evaluation: .*{other.digest[:10]}.*{mine.digest[:10]}"):
        register.register(mine, judged(other), RELEASE, tracked)


def test_a_release_decides_anew_about_a_version(tracked: Runtime, tmp_path: Path) -> None:
    first = put(tmp_path, tracked, 60.0)
    put(tmp_path, tracked, 50.0, worse)
    challenger = lookup.resolve("challenger", tracked)

    def still_worse(champion: Model) -> Verdict:
        return Verdict(champion.digest != first.digest, "Not promoted: still worse.")

    stays = register.release(challenger, "", tracked, still_worse)
    assert (stays.version, stays.alias, stays.reason) == (2, "challenger", "Not promoted: still worse.")
    takes_over = register.release(challenger, "", tracked, better)
    assert (takes_over.alias, register.release(challenger, "", tracked, worse)) == ("champion", takes_over)
    assert histories(tracked)[2] == [
        "challenger: Not promoted: worse.", "challenger: Not promoted: still worse.", "champion: Promoted: better.",
    ]  # fmt: skip
    with pytest.raises(ModelError, match="has no version of 'agepipe'"):
        register.release(model(tmp_path, 40.0), "", tracked, better)


def test_promotion_and_rollback_by_hand_write_history(tracked: Runtime, tmp_path: Path) -> None:
    put(tmp_path, tracked, 60.0)
    put(tmp_path, tracked, 50.0, worse)
    assert register.promote("", 2, "Better on the new camera.", tracked).alias == "champion"
    assert register.rollback("agepipe", tracked) == 1
    two, one = lookup.versions("agepipe", tracked)
    assert (one.alias, two.alias) == ("champion", "retired")
    assert two.tags["agepipe.replaced_by"] == "version 1: Rolled back from version 2."
    lines = two.tags["agepipe.history"].splitlines()
    assert [line.split(" UTC ")[1] for line in lines] == [
        "challenger: Not promoted: worse.", "champion: Better on the new camera.",
    ]  # fmt: skip
    with pytest.raises(ModelError, match="no earlier champion"):
        register.rollback("agepipe", tracked)


def test_a_rollback_goes_to_the_champion_before_not_to_the_number_before(tracked: Runtime, tmp_path: Path) -> None:
    put(tmp_path, tracked, 60.0)
    put(tmp_path, tracked, 50.0, worse)
    assert put(tmp_path, tracked, 40.0).alias == "champion"
    assert register.rollback("agepipe", tracked) == 1
    assert [found.alias for found in lookup.versions("agepipe", tracked)] == ["retired", "challenger", "champion"]
    register.promote("agepipe", 2, "Better at night.", tracked)
    register.promote("agepipe", 1, "Better by day.", tracked)
    assert register.rollback("agepipe", tracked) == 2


def test_whatever_changes_the_registry_waits_for_its_turn(tracked: Runtime, tmp_path: Path) -> None:
    put(tmp_path, tracked, 60.0)
    put(tmp_path, tracked, 50.0)
    new, two = model(tmp_path, 40.0), lookup.resolve("2", tracked)
    changes: list[Callable[[], object]] = [
        lambda: register.rollback("agepipe", tracked),
        lambda: register.promote("agepipe", 2, "Better at night.", tracked),
        lambda: register.release(two, "agepipe", tracked, worse),
        lambda: register.register(new, judged(new), RELEASE, tracked, decide=worse),
    ]
    with ThreadPoolExecutor(1) as pool:
        for change in changes:
            before = standing(tracked)
            with store.locked(tracked, "registry"):
                running = pool.submit(change)
                with pytest.raises(TimeoutError):
                    running.result(timeout=0.5)
                assert standing(tracked) == before
            running.result(timeout=60)


def test_a_promotion_needs_a_version_and_a_reason(tracked: Runtime, tmp_path: Path) -> None:
    put(tmp_path, tracked, 60.0)
    with pytest.raises(ModelError, match="because: it is empty"):
        register.promote("agepipe", 1, " ", tracked)
    with pytest.raises(
        ModelError, match=r"'9' is not known; 'agepipe' has the versions 1 and .* champion \(version 1\)"
    ):
        register.promote("agepipe", 9, "why not", tracked)


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


def test_a_version_that_is_no_better_than_a_guess_says_so_and_links_to_no_stranger(
    tracked: Runtime, tmp_path: Path
) -> None:
    new = model(tmp_path)
    poor = judged(new).model_copy(update={"warning": "No better than a guess."})
    register.register(new, poor, RELEASE, tracked)
    register.register(model(tmp_path, 50.0), None, RELEASE, tracked, decide=worse)
    client = tracking.client(tracked)
    assert "No better than a guess." in client.get_model_version("agepipe", "1").description
    register.promote("agepipe", 2, "@anna tried it, says @bert", tracked)
    described = client.get_model_version("agepipe", "2").description
    assert not re.search(MENTION, described)
    assert described.replace("\\", "") == "@anna tried it, says @bert"


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


def test_a_moved_store_still_gives_its_models(tracked: Runtime, tmp_path: Path) -> None:
    first = put(tmp_path, tracked, 60.0)
    (tmp_path / "mlruns").rename(tmp_path / "archive")
    moved = tracked.model_copy(update={"tracking": f"sqlite:///{tmp_path}/archive/mlflow.db"})
    found = lookup.resolve("champion", moved)
    assert found.folder.is_relative_to(tmp_path / "archive")
    assert found.digest == first.digest
    assert put(tmp_path, moved, 50.0).version == 2


@pytest.mark.slow
def test_two_processes_register_at_once(tracked: Runtime, tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from agepipe.config.base import changed
from agepipe.config.runtime import Runtime
from versions import put
where = Runtime(tracking=sys.argv[2], workspace=Path(sys.argv[3]))
print(put(Path(sys.argv[3]), where, float(sys.argv[4])).version)
"""
    root = Path(__file__).parents[2]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(root), tracked.tracking, str(tmp_path), sharpness],
            stdout=subprocess.PIPE, text=True,
        )
        for sharpness in ("60", "50")
    ]  # fmt: skip
    assert sorted(int(process.communicate(timeout=180)[0]) for process in running) == [1, 2]
    two, one = lookup.versions("agepipe", tracked)
    assert (one.alias, two.alias, two.replaces) == ("retired", "champion", 1)


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
