"""Stages of machines that share a bucket: what is computed, pushed, and removed by `--refresh`."""

import shutil
from pathlib import Path

import pytest
from small_stages import calls, chain, kept_flow, made

from agepipe.config.runtime import Runtime
from agepipe.config.stages import IngestSettings
from agepipe.core.errors import StorageError
from agepipe.data.records import Catalogue
from tasks.cache import cached


@pytest.fixture
def machines(tmp_path: Path) -> tuple[Runtime, Runtime]:
    bucket = f"file://{tmp_path}/shared"
    one, two = (Runtime(workspace=tmp_path / name, bucket=bucket) for name in ("one", "two"))
    return one, two


def test_the_second_machine_computes_nothing(machines: tuple[Runtime, Runtime], prefect_server: None) -> None:
    one, two = machines
    before = chain(IngestSettings(), one)
    calls.clear()
    after = chain(IngestSettings(), two)
    assert not calls
    assert [record.digest for record in after] == [record.digest for record in before]
    assert all(record.folder.is_relative_to(two.workspace) and record.intact() for record in after)


def test_refresh_computes_again_and_others_get_the_new_result(
    machines: tuple[Runtime, Runtime], prefect_server: None, tmp_path: Path
) -> None:
    one, _ = machines
    before = kept_flow(one)
    (before.folder / "pixels.npy").write_bytes(b"former")
    calls.clear()
    kept_flow(one.model_copy(update={"refresh": ("split",)}))
    assert calls == {"kept": 1}
    three = one.model_copy(update={"workspace": tmp_path / "three"})
    assert (kept_flow(three).folder / "pixels.npy").read_bytes() == b""
    assert calls == {"kept": 1}


@cached("split", "splits", version=1)
def cut_off(folder: Path, runtime: Runtime) -> Catalogue:
    """Loses the connection to the bucket while it computes."""
    calls["cut off"] += 1
    shared = Path(runtime.bucket.removeprefix("file://"))
    shutil.rmtree(shared, ignore_errors=True)
    shared.write_text("a file in the place of the bucket")
    return made(folder, "cut off")


def test_a_result_that_cannot_be_pushed_is_kept_and_pushed_later(machines: tuple[Runtime, Runtime]) -> None:
    one, two = machines
    calls.clear()
    with pytest.raises(StorageError, match=f"workspace: '{one.bucket}' .* is kept"):
        cut_off(one)
    Path(one.bucket.removeprefix("file://")).unlink()
    assert cut_off(one).digest == cut_off(two).digest
    assert calls == {"cut off": 1}
