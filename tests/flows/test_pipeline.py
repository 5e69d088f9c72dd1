"""The whole pipeline in process: what it makes, what it computes again, and what it leaves alone."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from prefect import flow
from videos import read, video

from agepipe.config.base import changed
from agepipe.config.runtime import Runtime
from agepipe.config.stages import Config, EvaluateSettings, ReleaseSettings
from agepipe.core.errors import LeakageError, ModelError
from agepipe.data.records import Rows
from agepipe.data.sample.source import draw
from agepipe.model.bundle import read_card
from agepipe.model.bundle_files import write_card
from agepipe.model.decoding import decide
from agepipe.model.imaging import Image, fit
from agepipe.model.predictor import Predictor
from agepipe.registry import lookup, register, tracking
from agepipe.reports import comparison
from agepipe.serving import camera_session
from agepipe.serving.align import align
from agepipe.serving.deploy import deploy
from agepipe.serving.detect.yunet import YuNet
from agepipe.serving.sources import open_source
from flows.compare import compare
from flows.evaluate import evaluate
from flows.pipeline import pipeline
from flows.release import release
from flows.result import PipelineResult
from tasks.relabel import relabel
from tasks.split import partitioned

JUDGED = EvaluateSettings(draws=200)
"""As the tiny pipeline judges."""


def runs_by_kind(runtime: Runtime) -> Counter[str]:
    """How often each kind of work was really done."""
    found = tracking.client(runtime).search_runs([tracking.prepare(runtime)], max_results=1000)
    return Counter(run.data.tags["agepipe.kind"] for run in found)


def added(runtime: Runtime, before: Counter[str]) -> Counter[str]:
    return runs_by_kind(runtime) - before


def test_it_ends_with_a_registered_champion_judged_on_locked_rows(first: PipelineResult, home: Runtime) -> None:
    assert (first.registered.version, first.registered.alias) == (1, "champion")
    assert first.evaluation.count == first.partition.test.count
    assert first.evaluation.report.is_file()
    assert first.report.page.is_file()
    low, high = first.evaluation.intervals["accuracy"]
    assert low <= first.evaluation.metrics["accuracy"] <= high
    assert lookup.resolve("champion", home, "agepipe-sample").digest == first.model.digest


def test_no_description_links_to_a_stranger_and_the_pipeline_s_has_the_verdict(
    first: PipelineResult, home: Runtime
) -> None:
    runs = tracking.client(home).search_runs([tracking.prepare(home)], max_results=1000)
    notes = {run.info.run_id: run.data.tags.get("mlflow.note.content", "") for run in runs}
    assert not [note for note in notes.values() if re.search(r"(^|\s)@\w", note)]
    (pipeline_note,) = [note for note in notes.values() if "Version 1 of agepipe-sample, champion" in note]
    for note in (pipeline_note, notes[first.evaluation.run or ""]):
        assert first.evaluation.verdict in note
        assert first.evaluation.warning in note


def test_search_and_training_receive_no_test_row(first: PipelineResult) -> None:
    parts = first.partition
    development, test = (pl.read_parquet(rows.table) for rows in (parts.development, parts.test))
    seen = pl.read_parquet(first.model.folder / "lineage.parquet")
    for column in ("digest", "group"):
        assert not set(development[column]) & set(test[column])
    assert not set(seen["digest"]) & set(test["digest"])
    assert set(seen["digest"]) == set(development["digest"])


def test_a_partition_whose_files_are_gone_is_drawn_again(first: PipelineResult, tiny: Config, home: Runtime) -> None:
    """The registry remembers the champion's partition; its workspace may have been deleted since."""
    lost = first.partition.model_copy(update={"development": _moved(first.partition.development, home)})
    assert not lost.intact()

    @flow
    def again() -> tuple[bool, bool]:
        rows = relabel(first.catalogue, tiny.labels, home)
        kept = partitioned(rows, tiny.split, first.partition, home)
        return kept == first.partition, partitioned(rows, tiny.split, lost, home).intact()

    assert again() == (True, True)


def _moved(rows: Rows, runtime: Runtime) -> Rows:
    return rows.model_copy(update={"table": runtime.workspace / "gone" / "rows.parquet"})


def test_the_run_of_a_pipeline_names_the_model_that_it_found_registered(first: PipelineResult, home: Runtime) -> None:
    later = tracking.client(home).create_run(
        tracking.prepare(home), tags={"model.version": "agepipe-sample/1", "agepipe.kind": "pipeline"}
    )
    tracking.client(home).set_terminated(later.info.run_id)
    assert lookup.resolve(later.info.run_id, home, "agepipe-sample").digest == first.model.digest


def test_prefect_and_mlflow_name_each_other(first: PipelineResult, home: Runtime) -> None:
    from prefect.client.orchestration import get_client

    tags = tracking.client(home).get_run(first.run).data.tags
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(tags["prefect.flow_run_id"])
        artifacts = client.read_artifacts()
    assert flow_run.name == tags["prefect.flow_run_name"] == "pipeline sample"
    named = [item for item in artifacts if item.key == "mlflow-run" and item.flow_run_id == flow_run.id]
    assert first.run in str(named[0].data)
    assert {"datareport", "evaluation"} <= {item.key for item in artifacts}


def test_the_run_holds_configuration_curves_data_and_reports(first: PipelineResult, home: Runtime) -> None:
    client = tracking.client(home)
    parent = client.get_run(first.run)
    assert parent.data.params["learn.network"] == "shufflenet_v2_x0_5"
    assert parent.data.metrics["macro_recall"] == pytest.approx(first.evaluation.metrics["macro_recall"])
    assert {item.dataset.name for item in parent.inputs.dataset_inputs}
    files = {item.path for item in client.list_artifacts(first.run)}
    assert {"config.json", "datareport", "evaluation"} <= files
    children = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{first.run}'")
    kinds = Counter(child.data.tags["agepipe.kind"] for child in children)
    assert kinds == {"trial": 4, "train": 1, "evaluate": 1}
    trial = next(child for child in children if child.data.tags["agepipe.kind"] == "trial")
    assert {"validation_macro_recall", "validation_macro_precision", "validation_mae"} <= set(trial.data.metrics)
    trained = next(child for child in children if child.data.tags["agepipe.kind"] == "train")
    assert len(client.get_metric_history(trained.info.run_id, "validation_macro_recall")) == 2
    assert {item.path for item in client.list_artifacts(trained.info.run_id, "curves")} == {
        f"curves/{name}.png" for name in ("precision", "recall", "precision-error", "recall-error")
    }
    assert trained.data.params["learn.lr"] in {"0.003", "0.01"}


def test_an_identical_run_computes_nothing(first: PipelineResult, tiny: Config, home: Runtime) -> None:
    before = runs_by_kind(home)
    again = pipeline(tiny, home)
    assert added(home, before) == {"pipeline": 1}
    assert again.model_copy(update={"run": first.run}) == first
    tags = tracking.client(home).get_run(again.run).data.tags
    assert tags["model.run"] == first.model.run


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({"final.epochs": 1}, {"train": 1, "evaluate": 1}),
        ({"learn.dropout": 0.3}, {"trial": 4, "train": 1, "evaluate": 1}),
    ],
)
def test_a_changed_setting_recomputes_its_stage_and_what_follows(
    first: PipelineResult, tiny: Config, home: Runtime, changes: dict[str, object], again: dict[str, int]
) -> None:
    before = runs_by_kind(home)
    other = pipeline(changed(tiny, changes), home)
    assert added(home, before) == {"pipeline": 1, **again}
    assert other.partition == first.partition
    assert other.registered.version > first.registered.version


@pytest.mark.slow
def test_one_more_value_in_the_grid_adds_its_trials_alone(first: PipelineResult, tiny: Config, home: Runtime) -> None:
    before = runs_by_kind(home)
    pipeline(changed(tiny, {"search.grid": {"lr": (0.003, 0.01, 1e-6)}}), home)
    assert added(home, before)["trial"] == 2


@pytest.mark.slow
def test_refresh_forces_a_stage_and_ends_with_the_same_weights(
    first: PipelineResult, tiny: Config, home: Runtime
) -> None:
    before = runs_by_kind(home)
    again = pipeline(tiny, home.model_copy(update={"refresh": ("train",)}))
    assert added(home, before) == {"pipeline": 1, "train": 1, "evaluate": 1}
    assert again.model.digest == first.model.digest
    assert again.registered.version == first.registered.version


def test_evaluate_alone_gives_the_stored_result(first: PipelineResult, home: Runtime) -> None:
    before = runs_by_kind(home)
    for reference in ("champion", "1", first.model.run or "", str(first.model.folder)):
        found = evaluate(reference, runtime=home, settings=JUDGED)
        assert found.metrics == first.evaluation.metrics
    assert not added(home, before)


@pytest.mark.slow
def test_evaluating_on_the_photographs_it_learned_from_is_a_leak(
    first: PipelineResult, drawn: Path, home: Runtime
) -> None:
    with pytest.raises(LeakageError, match="--exclude-seen"):
        evaluate("champion", (str(drawn),), runtime=home)
    rest = evaluate("champion", (str(drawn),), runtime=home, exclude_seen=True)
    assert rest.excluded == first.partition.development.count
    assert rest.count == first.partition.test.count


@pytest.mark.slow
def test_two_versions_are_compared_and_released_on_the_rows_that_both_left_alone(
    first: PipelineResult, tiny: Config, home: Runtime, tmp_path: Path
) -> None:
    other = pipeline(changed(tiny, {"final.epochs": 1}), home)
    names = (str(first.registered.version), str(other.registered.version))
    done = compare(names, runtime=home, settings=JUDGED)
    found = comparison.read(done)
    assert (found.rows, found.count, found.excluded) == (first.partition.test.digest, first.partition.test.count, 0)
    before = runs_by_kind(home)
    assert compare(names, runtime=home, settings=JUDGED) == done
    assert not added(home, before)
    run = tracking.client(home).get_run(done.run or "")
    assert run.data.tags["agepipe.kind"] == "compare"
    assert [item.path for item in tracking.client(home).list_artifacts(run.info.run_id)] == ["comparison"]

    register.promote(first.registered.name, other.registered.version, "To have it beaten.", home)
    settings = ReleaseSettings(metric="loss", confidence=0.51, watch=())
    verdict = release(names[0], settings=settings, evaluate=JUDGED, runtime=home)
    assert verdict.alias in ("champion", "challenger")
    assert f"{first.partition.test.count} photographs" in verdict.reason
    stranger = tmp_path / "stranger"
    shutil.copytree(first.model.folder, stranger)
    write_card(stranger, read_card(stranger).model_copy(update={"versions": {}}))
    with pytest.raises(
        ModelError, match=r"no locked test rows in common \(stranger has others, or none\); give --anew"
    ):
        compare((names[0], str(stranger)), runtime=home)
    assert comparison.read(compare((names[0], str(stranger)), anew=True, runtime=home, settings=JUDGED)).count


def test_an_unknown_model_is_named(first: PipelineResult, home: Runtime) -> None:
    with pytest.raises(ModelError, match="'nobody' is not known"):
        evaluate("nobody", runtime=home)


@pytest.mark.slow
def test_a_start_from_a_version_that_has_seen_a_test_row_is_refused_before_any_training(
    first: PipelineResult, tiny: Config, home: Runtime
) -> None:
    """Another split, in which rows that the champion was fitted on are locked, would flatter whatever starts there."""
    start = {"learn.weights": "models:/agepipe-sample/1", "split.seed": 21, "split.extend": False}
    before = runs_by_kind(home)
    with pytest.raises(LeakageError, match=r"learn.weights: .*network\.pt has seen \d+ of the \d+ rows"):
        pipeline(changed(tiny, {**start, "search.grid": {}, "final.refit": True}), home)
    assert not added(home, before).keys() & {"trial", "train"}


@pytest.mark.slow
def test_a_source_that_grows_extends_the_split(
    first: PipelineResult, tiny: Config, home: Runtime, drawn: Path, tmp_path: Path
) -> None:
    draw(tmp_path / "more", 60, seed=99)
    grown = changed(tiny, {"source.data": (str(drawn), str(tmp_path / "more")), "search.grid": {}})
    result = pipeline(grown, home)
    for side in ("development", "test"):
        before, after = (set(pl.read_parquet(getattr(one.partition, side).table)["digest"]) for one in (first, result))
        assert before <= after
    assert result.partition.whole != first.partition.whole


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_from_photographs_to_a_range_on_the_screen_with_no_hand(
    first: PipelineResult, home: Runtime, drawn_faces: list[Image], detector: YuNet, tmp_path: Path
) -> None:
    """Pipeline, registry, deployment, camera; what the camera says first of each face is what the predictor says."""
    film = video(tmp_path / "film.mp4", drawn_faces, frames=12)
    deployed = deploy("champion", home, first.registered.name)
    assert deployed.digest == first.model.digest
    asked = camera_session.CameraOptions(
        source=str(film), headless=True, output=tmp_path / "out.mp4", events=tmp_path / "out.jsonl",
        name=first.registered.name,
    )  # fmt: skip
    done = camera_session.run(asked, home)
    assert (done.frames, done.tracks, done.models) == (12, {1, 2}, [deployed.title])
    assert len(read(tmp_path / "out.mp4")) == 12
    events = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(events) == 24, "both drawn faces are found in every frame"
    predictor = Predictor.load(lookup.resolve("champion", home, first.registered.name).folder)
    frame = next(iter(open_source(str(film)).frames())).image
    chips = [fit(align(frame, face.landmarks), predictor.card.size) for face in detector.find(frame, 320)]
    expected = predictor.predict(np.stack(chips))
    ranges, labels = predictor.card.ranges, decide(expected.probabilities, predictor.card.decoding)
    start = [event for event in events if event["frame"] == 0]
    assert [event["range"] for event in start] == [ranges.words[label] for label in labels]
    assert [event["age"] for event in start] == pytest.approx(expected.years.tolist(), abs=1e-3)
    assert [(event["low"], event["high"]) for event in start] == predictor.card.spans(expected.probabilities)
