"""The stage decorator against a real Prefect server: what is computed again, and what is not."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from small_stages import calls, chain, kept, kept_flow, slow_flow

from agepipe.config.runtime import Runtime
from agepipe.config.stages import FinalSettings, IngestSettings, LearnSettings, SearchSettings
from agepipe.core.artifacts import read_manifest
from agepipe.core.errors import SourceError
from agepipe.core.record import Record
from agepipe.data.records import Catalogue, Rows
from agepipe.model.ages import AgeRanges
from agepipe.search.records import Fold, Request, Trial, TrialSpec
from agepipe.training.records import Choice
from tasks.audit import audit
from tasks.cache import cache_key
from tasks.compare import compare
from tasks.evaluate import evaluate
from tasks.ingest import catalogued
from tasks.predict import part
from tasks.relabel import relabel
from tasks.split import split
from tasks.stage import Stage
from tasks.train import _train, train
from tasks.trial import train as train_trials
from tasks.trial import trial

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_a_second_run_computes_nothing_and_gives_the_same_records(runtime: Runtime) -> None:
    before = chain(IngestSettings(), runtime)
    calls.clear()
    assert chain(IngestSettings(), runtime) == before
    assert not calls


@pytest.mark.slow
def test_where_the_work_is_done_does_not_matter(ready: Runtime) -> None:
    chain(IngestSettings(), ready.model_copy(update={"workers": 7, "device": "cuda"}))
    assert not calls


def test_a_changed_setting_recomputes_its_stage_and_what_follows(ready: Runtime) -> None:
    chain(IngestSettings(size=64), ready)
    assert calls == {"first": 1, "second 1": 1, "second 2": 1}


def test_one_more_setting_of_a_fan_out_computes_only_that(ready: Runtime) -> None:
    chain(IngestSettings(), ready, (1, 2, 3))
    assert calls == {"second 3": 1}


def test_refresh_computes_a_stage_and_those_after_it(ready: Runtime) -> None:
    chain(IngestSettings(), ready.model_copy(update={"refresh": ("audit",)}))
    assert calls == {"second 1": 1, "second 2": 1}
    calls.clear()
    chain(IngestSettings(), ready.model_copy(update={"refresh": ("ingest",)}))
    assert calls == {"first": 1, "second 1": 1, "second 2": 1}


def forgotten(runtime: Runtime) -> None:
    """A run was killed before Prefect stored the record of what it had just finished."""
    (record,) = (runtime.workspace / "records").glob("split-*")
    record.unlink()


def test_a_finished_folder_is_found_without_its_stored_record(runtime: Runtime) -> None:
    before = kept_flow(runtime)
    forgotten(runtime)
    calls.clear()
    assert kept_flow(runtime) == before
    assert not calls


def test_refresh_makes_a_stage_again_whose_folder_outlived_its_record(runtime: Runtime) -> None:
    folder = kept_flow(runtime).folder
    (folder / "former").touch()
    forgotten(runtime)
    calls.clear()
    kept_flow(runtime.model_copy(update={"refresh": ("split",)}))
    assert calls == {"kept": 1}
    assert not (folder / "former").exists()


@pytest.mark.slow
def test_a_refresh_keeps_what_this_run_has_made_again(runtime: Runtime) -> None:
    """A search begins again when workers have died; what it finished before that is not computed a third time."""

    @flow
    def twice() -> list[Catalogue]:
        wanted = runtime.model_copy(update={"refresh": ("split",)})
        return [kept_flow(wanted), kept_flow(wanted), kept(wanted)]

    kept_flow(runtime)
    calls.clear()
    twice()
    assert calls == {"kept": 1}
    twice()
    assert calls == {"kept": 2}


def test_an_interrupted_stage_goes_on_in_its_folder(runtime: Runtime) -> None:
    with pytest.raises(SourceError, match="planted"):
        slow_flow(runtime)
    assert not [path for path in (runtime.workspace / "models").iterdir() if not path.name.startswith(".")]
    folder = slow_flow(runtime).folder
    assert calls == {"second half": 1}
    assert [path.name for path in (runtime.workspace / "models").iterdir()] == [folder.name]


def test_two_calls_for_one_result_make_it_once(runtime: Runtime) -> None:
    with ThreadPoolExecutor(4) as pool:
        records = list(pool.map(lambda _: kept.without_prefect(runtime), range(4)))
    assert calls == {"kept": 1}
    assert len(set(map(str, records))) == 1


def test_the_manifest_holds_the_record_and_what_it_was_made_of(ready: Runtime) -> None:
    record = chain(IngestSettings(), ready, (3,))[0]
    manifest = read_manifest(record.folder)
    assert manifest is not None
    assert manifest["stage"] == "audit"
    assert manifest["settings"] == {"factor": 3}
    assert manifest["inputs"] == {"catalogue": "first 108"}
    assert Catalogue.model_validate(manifest["result"]).resolved_in(ready.workspace) == record
    assert str(ready.workspace) not in str(manifest)


def test_an_error_comes_out_as_itself_and_leaves_nothing(runtime: Runtime) -> None:
    for _ in range(2):
        with pytest.raises(SourceError, match="planted"):
            chain(IngestSettings(min_side=1), runtime)
    assert calls == {"first": 2}
    assert not list((runtime.workspace / "datasets").iterdir())


def test_the_key_follows_content_and_settings_but_not_paths(tmp_path: Path) -> None:
    here = Catalogue(digest="a", name="x", folder=tmp_path / "here", size=64, count=1, rejected=0)
    there = here.model_copy(update={"folder": tmp_path / "there", "run": "a run"})
    other = here.model_copy(update={"digest": "b"})
    keys = [
        cache_key("audit", 1, {"catalogue": item, "factor": 1, "runtime": Runtime()}) for item in (here, there, other)
    ]
    assert keys[0] == keys[1] != keys[2]
    assert cache_key("audit", 2, {"catalogue": here, "factor": 1}) != keys[0]


STAGES = (catalogued, audit, relabel, split, trial, _train, evaluate, compare, part)


@pytest.mark.parametrize("one", STAGES, ids=lambda one: one.name)
def test_every_argument_of_a_stage_is_part_of_its_key_but_where(one: Stage[..., Record]) -> None:
    names = [name for name in one.signature.parameters if name not in ("runtime", *one.without_prefect.not_in_key)]
    for name in names:
        for values in ((False, True), (None, 1), (1, 2), ("a", "b"), ((), ("a",)), ({}, {"lr": 0.1})):
            keys = {
                cache_key(one.name, 1, {**dict.fromkeys(names, 0), name: value, "runtime": Runtime()})
                for value in values
            }
            assert len(keys) == 2, (name, values)


def test_first_weights_count_by_the_content_of_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both for the trials and for the last training, also where the search chooses the file."""
    weights, keys = tmp_path / "start.pt", []
    settings, learn = {"weights": str(weights)}, LearnSettings()
    choice = Choice(digest="c", settings=settings, metric="loss", mean=0.0, deviation=0.0, trials=2)
    rows = Rows(digest="r", table=tmp_path, pixels=tmp_path, size=64, count=1, ranges=AgeRanges.of("utkface"))
    fold = Fold(index=0, count=2, seed=1)

    def trained(*args: object) -> None:
        keys.append(cache_key("train", 1, _train.signature.bind(*args).arguments))

    def tried(asked: list[dict[str, Any]], *_: object) -> list[Trial | None]:
        keys.extend(trial.without_prefect.key(call) for call in asked)
        return [None] * len(asked)

    monkeypatch.setattr("tasks.train._train", trained)
    monkeypatch.setattr(trial, "gather", tried)
    request = Request([TrialSpec(0, settings, fold)])
    for content in (b"one", b"two"):
        weights.write_bytes(content)
        train(rows, learn, choice, FinalSettings(), Runtime())
        train_trials(request, rows, learn, SearchSettings(), Runtime(), lambda _: None)
    assert len(keys) == len(set(keys)) == 4


def test_only_a_refit_is_another_model_after_another_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes its calibration from the trials' predictions; any other training only its settings."""
    keys: list[str] = []
    monkeypatch.setattr("tasks.train._train", lambda *args: keys.append(_key(args)))
    one = Choice(digest="one", settings={"lr": 0.5}, metric="loss", mean=0.0, deviation=0.0, trials=2)
    rows = Rows(digest="r", table=tmp_path, pixels=tmp_path, size=64, count=1, ranges=AgeRanges.of("utkface"))
    for final in (FinalSettings(), FinalSettings(refit=True)):
        for choice in (one, one.model_copy(update={"digest": "another"})):
            train(rows, LearnSettings(), choice, final, Runtime())
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def _key(args: tuple[object, ...]) -> str:
    return cache_key("train", 1, _train.signature.bind(*args).arguments)


def test_the_place_of_a_setting_in_a_search_is_no_part_of_a_trial() -> None:
    assert trial.without_prefect.not_in_key == ("settings", "setting", "paused", "finished")
    names = {name: 0 for name in trial.signature.parameters if name != "runtime"}
    keys = {trial.without_prefect.key({**names, name: 1}) for name in trial.without_prefect.not_in_key}
    assert keys == {trial.without_prefect.key(names)}


def test_the_server_is_asked_for_no_concurrency_limit_before_a_trial() -> None:
    assert not trial.task.tags


def test_refresh_reaches_later_stages_only() -> None:
    runtime = Runtime(refresh=("split",))
    assert runtime.refreshes("train")
    assert runtime.refreshes("split")
    assert not runtime.refreshes("ingest")
