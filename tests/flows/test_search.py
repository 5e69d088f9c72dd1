"""The search as a flow, with real trials: what each strategy trains, keeps, marks and finds again."""

import json
import os
import shutil
import signal
import threading
from pathlib import Path

import psutil
import pytest
from labelled import labelled_rows

from agepipe.config.runtime import Runtime
from agepipe.config.search_space import Span
from agepipe.config.stages import LearnSettings, SearchSettings
from agepipe.core.errors import ConfigError, TrainingError
from agepipe.core.provenance import process
from agepipe.data.records import Rows
from agepipe.registry import tracking
from agepipe.training.records import Choice
from flows.search import search
from tasks.context import Context

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(900)]

LEARN = LearnSettings(network="shufflenet_v2_x0_5", size=32, epochs=2, batch=16, lr=0.01, target="years", average=0.8)
GRID = SearchSettings(grid={"lr": (0.01, 1e-5, 0.02)}, folds=2)
QUICK = LEARN.model_copy(update={"epochs": 1})
PAIR = SearchSettings(grid={"lr": (0.01, 0.02)}, folds=2)
HALVING = GRID.model_copy(update={"strategy": "halving", "rungs": (1,)})


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    return labelled_rows(tmp_path_factory.mktemp("rows"))


def runs(runtime: Runtime) -> list:  # type: ignore[type-arg]
    return list(tracking.client(runtime).search_runs([tracking.prepare(runtime)], max_results=1000))


def under_parent(runtime: Runtime, rows: Rows, settings: SearchSettings, key: str) -> Choice:
    with tracking.run(runtime, kind="pipeline", name="all", key=key) as parent:
        return search(rows, LEARN, settings, Context(**dict(runtime), parent=parent.run_id))


def workers(runtime: Runtime) -> set[str]:
    """The processes whose tasks trained."""
    return {run.data.tags["agepipe.process"] for run in runs(runtime) if run.data.tags["agepipe.kind"] == "trial"}


def artifacts(key: str) -> list[dict]:  # type: ignore[type-arg]
    """What Prefect keeps under a key, the oldest first."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        found = [one for one in client.read_artifacts() if one.key == key]
    return [{"description": one.description, "data": one.data} for one in sorted(found, key=lambda one: one.created)]


def stamps(runtime: Runtime) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in runtime.workspace.glob("trials/*/manifest.json")}


@pytest.mark.slow
def test_halving_stops_the_worst_and_chooses_as_the_grid_does_among_the_rest(rows: Rows, tracked: Runtime) -> None:
    choice = under_parent(tracked, rows, HALVING, "first")
    (stopped,) = choice.stopped
    assert (stopped.epochs, stopped.planned) == (1, 2)
    assert choice.settings != stopped.settings
    assert choice.trials == 6

    found = {run.info.run_id: run for run in runs(tracked) if run.data.tags["agepipe.kind"] == "trial"}
    assert len(found) == 6, "a trial that went on is one run"
    assert set(choice.runs) == set(found)
    marked = [run for run in found.values() if "agepipe.stopped" in run.data.tags]
    assert {run.data.tags["agepipe.stopped"] for run in marked} == {"after 1 of 2 epochs"}
    assert {float(run.data.params["learn.lr"]) for run in marked} == set(stopped.settings.values())
    assert len(marked) == 2
    for run in found.values():
        curve = tracking.client(tracked).get_metric_history(run.info.run_id, "validation_macro_recall")
        assert [point.step for point in curve] == ([1] if run in marked else [1, 2])
        assert run.info.status == "FINISHED"
    assert not list(tracked.workspace.glob("trials/.*-progress"))

    assert not list(tracked.workspace.glob("progress/*"))
    shown = artifacts("search-settings")[-2:]  # other tests have searched on this server
    assert [table["description"].split(" after ")[1][:13] for table in shown] == ["1 of 2 epochs", "2 of 2 epochs"]
    assert [len(json.loads(table["data"])) for table in shown] == [3, 2]
    assert float(artifacts("search")[-1]["data"]) == 100.0

    before = stamps(tracked)
    again = under_parent(tracked, rows, HALVING, "second")
    assert (again, stamps(tracked)) == (choice, before)
    assert len([run for run in runs(tracked) if run.data.tags["agepipe.kind"] == "trial"]) == 6


LONGER = LEARN.model_copy(update={"epochs": 5})


@pytest.fixture(scope="module")
def undisturbed(rows: Rows, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Choice:
    """What two threads choose when nothing dies."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(empty_store, folder / "mlruns")
    runtime = Runtime(workspace=folder, tracking=f"sqlite:///{folder}/mlruns/mlflow.db", device="cpu", workers=2)
    choice = search(rows, LONGER, PAIR, runtime)
    assert workers(runtime) == {process()}
    return choice


@pytest.mark.slow
def test_a_dask_scheduler_that_runs_already_chooses_what_threads_choose(
    rows: Rows, tracked: Runtime, undisturbed: Choice
) -> None:
    pytest.importorskip("prefect_dask", reason="needs agepipe[dask]")
    import dask
    from distributed import LocalCluster

    with (
        dask.config.set({"distributed.worker.daemon": False}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
    ):
        there = tracked.model_copy(update={"runner": "dask", "scheduler": cluster.scheduler_address})
        assert same(search(rows, LONGER, PAIR, there), undisturbed)
    assert len(workers(tracked) - {process()}) == 2


def kill_one(runtime: Runtime, over: threading.Event, killed: list[int]) -> None:
    """Once a trial has a checkpoint, kill the process that its runner has it in; for threads, the one that trains."""
    while not over.wait(0.01):
        if not list(runtime.workspace.glob("trials/.*-progress/*/checkpoint.pt")):
            continue
        owners = {int(run.data.tags["agepipe.process"].split(":")[1]) for run in runs(runtime)}
        if owners == {os.getpid()}:
            servers = psutil.Process().children()
            owners = {training.pid for one in servers for training in one.children() if "fork" in str(one.cmdline())}
        if owners:
            os.kill(min(owners), signal.SIGKILL)
            killed.append(min(owners))
            return


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["threads", "processes", "dask"])
def test_a_search_outlives_a_worker_and_chooses_what_threads_choose(
    rows: Rows, tracked: Runtime, undisturbed: Choice, runner: str, caplog: pytest.LogCaptureFixture
) -> None:
    if runner == "dask":
        pytest.importorskip("prefect_dask", reason="needs agepipe[dask]")
    over, killed = threading.Event(), []
    killer = threading.Thread(target=kill_one, args=(tracked, over, killed))
    killer.start()
    try:
        choice = search(rows, LONGER, PAIR, tracked.model_copy(update={"runner": runner}))
    finally:
        over.set()
        killer.join()
    assert killed
    assert same(choice, undisturbed)
    assert len(choice.runs) == 4
    assert (process() in workers(tracked)) == (runner == "threads")
    said = [record.getMessage() for record in caplog.records if record.name == "agepipe.progress"]
    words = {"threads": "continues from its last checkpoint", "processes": "continues with new ones", "dask": ""}
    wanted = words[runner]
    assert any(wanted in line for line in said) or not wanted


def same(one: Choice, other: Choice) -> bool:
    """All but which MLflow runs tell of it, and where the out-of-fold predictions lie, whose content is equal."""
    contents = [[path.read_bytes() for path in choice.outcomes] for choice in (one, other)]
    elsewhere = {"runs": other.runs, "outcomes": other.outcomes}
    return one.model_copy(update=elsewhere) == other and contents[0] == contents[1]


@pytest.mark.slow
def test_optuna_proposes_learns_and_is_found_again(rows: Rows, tracked: Runtime) -> None:
    pytest.importorskip("optuna", reason="needs agepipe[optuna]")
    space = {"lr": Span(low=1e-5, high=0.02, log=True), "head": ("linear", "v1")}
    settings = SearchSettings(strategy="optuna", space=space, trials=3, folds=2, metric="mae")
    choice = under_parent(tracked, rows, settings, "first")
    assert choice.trials == len(choice.runs) == 6
    assert set(choice.settings) == {"lr", "head"}
    found = [run for run in runs(tracked) if run.data.tags["agepipe.kind"] == "trial"]
    assert len({run.data.params["learn.lr"] for run in found}) == 3
    means = {}
    for run in found:
        means.setdefault(run.data.params["setting"], []).append(run.data.metrics["mae"])
    assert choice.mean == pytest.approx(min(sum(values) / 2 for values in means.values()))

    before = stamps(tracked)
    assert under_parent(tracked, rows, settings, "second") == choice
    assert stamps(tracked) == before
    assert len(list(tracked.workspace.glob("studies/*.db"))) == 1


BURSTING = LEARN.model_copy(update={"optimizer": "sgd", "weight_decay": 1.0, "epochs": 4, "batch": 8, "average": 0.0})
"""With `lr = 10` its loss is not finite within an epoch."""


@pytest.mark.parametrize(
    "settings",
    [
        SearchSettings(grid={"lr": (10.0, 0.01)}, folds=2),
        SearchSettings(strategy="halving", grid={"lr": (0.01, 10.0, 1e-4)}, rungs=(1,), folds=2),
        SearchSettings(strategy="optuna", space={"lr": (0.01, 10.0)}, trials=3, folds=2, seed=4),
    ],
    ids=lambda settings: settings.strategy,
)
@pytest.mark.slow
def test_a_setting_that_diverges_is_out_of_the_race(
    rows: Rows, tracked: Runtime, settings: SearchSettings, caplog: pytest.LogCaptureFixture
) -> None:
    if settings.strategy == "optuna":
        pytest.importorskip("optuna", reason="needs agepipe[optuna]")
    choice = search(rows, BURSTING, settings, tracked)
    assert choice.settings == {"lr": 0.01}
    assert choice.stopped == ()
    status = {(run.data.params["learn.lr"] == "10.0", run.info.status) for run in runs(tracked)}
    assert status == {(False, "FINISHED"), (True, "FAILED")}
    said = [record.getMessage() for record in caplog.records if record.name == "agepipe.progress"]
    assert "fold 0: the loss of lr=10 is not finite, so this setting is left out" in said
    assert search(rows, BURSTING, settings, tracked) == choice


def test_a_search_whose_settings_all_diverge_says_so(rows: Rows, tracked: Runtime) -> None:
    settings = SearchSettings(grid={"lr": (10.0, 9.0)}, folds=2)
    with pytest.raises(TrainingError, match="no setting could be trained to the end"):
        search(rows, BURSTING, settings, tracked)


def test_a_search_that_cannot_work_is_refused_before_it_starts(rows: Rows, tracked: Runtime) -> None:
    with pytest.raises(ConfigError, match=r"search\.rungs"):
        search(rows, QUICK, HALVING.model_copy(update={"rungs": (5,)}), tracked)
    assert not tracked.workspace.exists()
