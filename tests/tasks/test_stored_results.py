"""Stored results that are hostile, damaged, copied, moved or written by earlier versions."""

import shutil
from pathlib import Path

import pytest
from hostile import Hostile
from prefect.results import ResultRecord
from small_stages import calls, chain, kept_flow

from agepipe.config.runtime import Runtime
from agepipe.config.stages import IngestSettings
from agepipe.core.errors import DataError
from tasks.stored import plain

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.mark.parametrize("form", ["result", "call", "pickled", "damaged"])
def test_a_stored_result_that_is_no_record_is_computed_again_and_not_run(
    form: str, runtime: Runtime, hostile: Hostile
) -> None:
    before = kept_flow(runtime)
    (record,) = (runtime.workspace / "records").glob("split-*")
    record.write_bytes(record.read_bytes()[:-9] if form == "damaged" else getattr(hostile, form)())
    assert kept_flow(runtime) == before
    assert not hostile.ran
    assert plain(record.read_bytes()), "the next run finds it again"


def test_the_hostile_results_would_be_run_by_prefect(hostile: Hostile) -> None:
    for form in (hostile.result(), hostile.call()):
        ResultRecord.deserialize(form)
        assert hostile.ran
        hostile.mark.unlink()


def test_a_record_whose_files_are_gone_is_not_trusted(ready: Runtime) -> None:
    first_record = chain(IngestSettings(), ready)[0]
    shutil.rmtree(first_record.folder)
    chain(IngestSettings(), ready)
    assert calls == {"second 1": 1}


def test_a_record_that_was_cut_off_while_it_was_written_is_not_trusted(ready: Runtime) -> None:
    for record in (ready.workspace / "records").glob("ingest-*"):
        record.write_bytes(record.read_bytes()[:100])
    chain(IngestSettings(), ready)
    assert not calls, "the folder is found"
    assert all(plain(record.read_bytes()) for record in (ready.workspace / "records").glob("ingest-*"))


def copied(runtime: Runtime, tmp_path: Path) -> Runtime:
    shutil.copytree(runtime.workspace, tmp_path / "copy")
    return runtime.model_copy(update={"workspace": tmp_path / "copy"})


def listed(runtime: Runtime) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in runtime.workspace.rglob("*")}


@pytest.mark.slow
def test_a_copied_workspace_uses_its_own_files_and_leaves_the_original_alone(runtime: Runtime, tmp_path: Path) -> None:
    before = chain(IngestSettings(), runtime)
    copy, files = copied(runtime, tmp_path), listed(runtime)
    calls.clear()
    again = chain(IngestSettings(), copy)
    assert not calls
    assert [one.digest for one in again] == [one.digest for one in before]
    assert all(one.lies_in(copy.workspace) for one in again)
    chain(IngestSettings(), copy.model_copy(update={"refresh": ("ingest",)}))
    assert calls == {"first": 1, "second 1": 1, "second 2": 1}
    assert listed(runtime) == files


def test_a_moved_workspace_computes_nothing_again(runtime: Runtime, tmp_path: Path) -> None:
    chain(IngestSettings(), runtime)
    calls.clear()
    moved = runtime.model_copy(update={"workspace": runtime.workspace.rename(tmp_path / "moved")})
    assert all(one.intact() and one.lies_in(moved.workspace) for one in chain(IngestSettings(), moved))
    assert not calls


@pytest.mark.slow
def test_a_record_stored_when_all_records_lay_in_one_module_is_found(ready: Runtime) -> None:
    for record in (ready.workspace / "records").glob("*-*"):
        text = record.read_text(encoding="utf-8").replace("agepipe.data.records.", "agepipe.records.")
        assert "agepipe.records.Catalogue" in text
        record.write_text(text, encoding="utf-8")
    chain(IngestSettings(), ready)
    assert not calls


@pytest.mark.slow
def test_a_record_that_leads_into_another_workspace_counts_as_absent(runtime: Runtime, tmp_path: Path) -> None:
    """Earlier versions stored absolute paths."""
    chain(IngestSettings(), runtime)
    for record in (runtime.workspace / "records").glob("*-*"):
        text = record.read_text(encoding="utf-8")
        for kind in ("datasets", "audits"):
            text = text.replace(f"{kind}/", f"{runtime.workspace}/{kind}/")
        record.write_text(text, encoding="utf-8")
    copy, files = copied(runtime, tmp_path), listed(runtime)
    calls.clear()
    chain(IngestSettings(), runtime)
    assert not calls, "in its own workspace such a record is as good as another"
    again = chain(IngestSettings(), copy.model_copy(update={"refresh": ("audit",)}))
    assert calls == {"second 1": 1, "second 2": 1}, "the folder of the first is found in the copy"
    assert all(one.lies_in(copy.workspace) for one in again)
    assert {path: stamp for path, stamp in listed(runtime).items() if "/records" not in path} == {
        path: stamp for path, stamp in files.items() if "/records" not in path
    }


@pytest.mark.slow
def test_what_a_link_leads_to_is_not_removed(runtime: Runtime, tmp_path: Path) -> None:
    chain(IngestSettings(), runtime)
    (runtime.workspace / "datasets").rename(tmp_path / "elsewhere")
    (runtime.workspace / "datasets").symlink_to(tmp_path / "elsewhere")
    chain(IngestSettings(), runtime)
    with pytest.raises(DataError, match="datasets/ingest-"):
        chain(IngestSettings(), runtime.model_copy(update={"refresh": ("ingest",)}))
    assert list((tmp_path / "elsewhere").glob("ingest-*/pixels.npy"))
