"""A lock that machines share through a bucket; the bucket is on a real S3 server, or a folder."""

import logging
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from buckets import new_bucket, served

from agepipe.core import bucket_lock
from agepipe.core.errors import StorageError
from agepipe.core.storage import create, opened

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

HOLD = """
import sys, time
from agepipe.core.bucket_lock import bucket_lock
with bucket_lock("workspace", sys.argv[1], "registry"):
    print("held", flush=True)
    time.sleep(600)
"""
ADD = """
import sys, time
from pathlib import Path
from agepipe.core import bucket_lock
bucket_lock.PAUSE = 0.02
count = Path(sys.argv[2])
for _ in range(5):
    with bucket_lock.bucket_lock("workspace", sys.argv[1], "registry"):
        before = int(count.read_text())
        time.sleep(0.02)
        count.write_text(str(before + 1))
"""


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with served() as address:
        yield address


@pytest.fixture(params=["s3", "file"])
def uri(request: pytest.FixtureRequest, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(bucket_lock, "PAUSE", 0.02)
    return new_bucket() if request.param == "s3" else f"file://{tmp_path}/shared/team"


@pytest.mark.timeout(600)
def test_of_processes_that_count_at_once_none_loses_a_count(uri: str, tmp_path: Path) -> None:
    count = tmp_path / "count"
    count.write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", ADD, uri, str(count)]) for _ in range(3)]
    assert [process.wait(500) for process in processes] == [0, 0, 0]
    assert count.read_text() == "15"


def test_the_objects_of_earlier_holders_are_removed(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_lock, "KEPT", 2)
    for _ in range(5):
        with bucket_lock.bucket_lock("workspace", uri, "registry"):
            pass
    fs, root = opened("workspace", uri)
    names = sorted(path.rpartition("/")[2] for path in fs.ls(f"{root}/locks/registry", detail=False))
    assert names == ["00000004", "00000004.ended", "00000005", "00000005.ended"]


def test_a_write_whose_answer_was_lost_takes_the_lock(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store has written the object; the repeated request is told that there is one already."""

    def repeated(fs: "AbstractFileSystem", path: str, content: bytes) -> bool:
        create(fs, path, content)
        return create(fs, path, content)

    monkeypatch.setattr(bucket_lock, "create", repeated)
    begin = time.monotonic()
    with bucket_lock.bucket_lock("workspace", uri, "registry"):
        assert time.monotonic() - begin < 30


@pytest.mark.timeout(600)
def test_the_lock_of_a_killed_holder_is_free_after_its_lease(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, uri], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
    monkeypatch.setattr(bucket_lock, "LEASE", 1.0)
    begin = time.monotonic()
    with bucket_lock.bucket_lock("workspace", uri, "registry"):
        assert time.monotonic() - begin > 1.0
    with bucket_lock.bucket_lock("workspace", uri, "registry"):
        assert time.monotonic() - begin < 60.0


def test_who_waits_gets_the_lock_when_it_is_released(uri: str) -> None:
    order: list[str] = []

    def wait() -> None:
        with bucket_lock.bucket_lock("workspace", uri, "registry"):
            order.append("second")

    with bucket_lock.bucket_lock("workspace", uri, "registry"):
        waiting = threading.Thread(target=wait)
        waiting.start()
        with bucket_lock.bucket_lock("workspace", uri, "another"):
            time.sleep(0.2)
            order.append("first")
    waiting.join(60)
    assert order == ["first", "second"]


def test_a_failure_in_the_block_releases_the_lock(uri: str) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="planted"), bucket_lock.bucket_lock("workspace", uri, "registry"):
            raise ValueError("planted")


def test_a_bucket_that_is_lost_meanwhile_does_not_undo_what_is_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = f"file://{tmp_path}/shared"
    with caplog.at_level(logging.WARNING), bucket_lock.bucket_lock("workspace", uri, "registry"):
        shutil.rmtree(tmp_path / "shared")
        (tmp_path / "shared").write_text("a file in the place of the bucket")
    assert "locks/registry/00000001" in caplog.text
    with pytest.raises(StorageError, match=uri), bucket_lock.bucket_lock("workspace", uri, "registry"):
        pass
