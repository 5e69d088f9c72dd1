"""A stage on the Dask worker of another machine, whose folder for the bucket has another path."""

import pickle
from pathlib import Path

import pytest
from small_stages import calls, first, kept, made, second

from agepipe.config.runtime import Runtime
from agepipe.config.stages import IngestSettings
from tasks.elsewhere import on_this_machine
from tasks.stage import _stored
from tasks.stored import RecordStorage


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """A search over a scheduler, as the machine sees it that searches."""
    monkeypatch.setenv("AGEPIPE_CACHE", str(tmp_path / "one"))
    return Runtime.model_validate(
        {"workspace": f"file://{tmp_path}/shared", "runner": "dask", "scheduler": "tcp://127.0.0.1:1"}
    )


def test_the_worker_fetches_its_inputs_and_its_result_reaches_the_searching_machine(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls.clear()
    catalogue = first.without_prefect(IngestSettings(), runtime)
    sent = pickle.dumps({"catalogue": catalogue, "factor": 1, "runtime": runtime})
    with monkeypatch.context() as worker:
        worker.setenv("AGEPIPE_CACHE", str(tmp_path / "two"))
        arguments = pickle.loads(sent)
        here = on_this_machine(arguments)
        assert here["catalogue"].folder.is_relative_to(tmp_path / "two")
        assert here["catalogue"].intact()
        assert here["factor"] == 1
        record = _stored(second.without_prefect)(**arguments)
    assert not record.folder.is_absolute()
    assert calls == {"first": 1, "second 1": 1}
    found = record.resolved_in(runtime.workspace)
    assert not found.intact()
    runtime.mirror.fetch(found)
    assert found.intact()
    assert found.folder.is_relative_to(tmp_path / "one")


def test_a_result_that_was_removed_from_the_bucket_is_computed_again_by_a_worker_that_has_it(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So `--refresh` on the searching machine reaches the workers."""
    catalogue = first.without_prefect(IngestSettings(), runtime)
    with monkeypatch.context() as worker:
        worker.setenv("AGEPIPE_CACHE", str(tmp_path / "two"))
        calls.clear()
        arguments = {"catalogue": catalogue, "factor": 3, "runtime": runtime}
        for _ in range(2):
            record = _stored(second.without_prefect)(**arguments)
    assert calls == {"second 3": 1}
    runtime.mirror.remove(record.resolved_in(runtime.workspace).folder)
    with monkeypatch.context() as worker:
        worker.setenv("AGEPIPE_CACHE", str(tmp_path / "two"))
        again = _stored(second.without_prefect)(**arguments)
    assert calls == {"second 3": 2}
    found = again.resolved_in(runtime.workspace)
    runtime.mirror.fetch(found)
    assert found.intact()


def test_records_in_tuples_are_moved_too(runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = kept.without_prefect(runtime)
    monkeypatch.setenv("AGEPIPE_CACHE", str(tmp_path / "two"))
    here = on_this_machine({"several": (found, found), "runtime": runtime})
    assert all(one.folder.is_relative_to(tmp_path / "two") and one.intact() for one in here["several"])


def test_without_a_bucket_or_a_scheduler_nothing_changes(tmp_path: Path, runtime: Runtime) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for one in (runtime.model_copy(update={"scheduler": ""}), Runtime(workspace=tmp_path / "folder")):
        given = {"record": made(folder, "made"), "runtime": one}
        assert on_this_machine(given) == given


def test_prefects_records_lie_in_the_folder_of_each_machine(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = RecordStorage.of(runtime)
    assert storage._resolve_path("key").is_relative_to(tmp_path / "one")
    monkeypatch.setenv("AGEPIPE_CACHE", str(tmp_path / "two"))
    sent = pickle.loads(pickle.dumps(storage))
    assert sent._resolve_path("key").is_relative_to(tmp_path / "two")
    assert RecordStorage.of(runtime.model_copy(update={"scheduler": ""})).bucket == ""
