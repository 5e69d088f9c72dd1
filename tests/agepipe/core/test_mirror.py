"""Results that machines share through a bucket; the bucket is on a real S3 server, or a folder."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from buckets import new_bucket, served

from agepipe.core.artifacts import read_manifest, sweep, whole, write_manifest
from agepipe.core.errors import StorageError
from agepipe.core.mirror import MARK, Mirror
from agepipe.core.record import Made

NAME = "faces-0123456789"
LARGE = 3 << 20


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with served() as address:
        yield address


@pytest.fixture(params=["s3", "file"])
def uri(request: pytest.FixtureRequest, s3: str, tmp_path: Path) -> str:
    return new_bucket() if request.param == "s3" else f"file://{tmp_path}/shared/team"


class Machine(Mirror):
    """A machine with a cache of its own."""

    def __init__(self, uri: str, home: Path) -> None:
        super().__init__(uri, home / "cache")
        self.folder = self.workspace / "models" / NAME

    def finish(self, content: bytes = b"weights") -> None:
        """Finish a result, not yet in the bucket: a large file, one in a folder, and an empty folder."""
        with whole(self.folder) as draft:
            (draft / "model.onnx").write_bytes(content * (LARGE // len(content)))
            (draft / "card.json").write_bytes(content)
            (draft / "plots").mkdir()
            (draft / "plots" / "curve.png").write_bytes(b"curve")
            (draft / "paused").mkdir()
            write_manifest(draft, "train", {}, {"model": "m" * 64}, {"count": 3})

    def content(self) -> dict[str, bytes]:
        files = [path for path in self.folder.rglob("*") if path.is_file() and path.name != MARK]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in files}


@pytest.fixture
def one(uri: str, tmp_path: Path) -> Machine:
    return Machine(uri, tmp_path / "one")


@pytest.fixture
def two(uri: str, tmp_path: Path) -> Machine:
    return Machine(uri, tmp_path / "two")


def objects(uri: str) -> list[str]:
    fs, root = fsspec.url_to_fs(uri, use_listings_cache=False)
    return sorted(fs.find(root))


def test_another_machine_gets_the_same_files(one: Machine, two: Machine) -> None:
    assert not two.settle(two.folder)
    one.finish()
    assert not one.settle(one.folder)
    assert two.settle(two.folder)
    assert two.content() == one.content()
    assert read_manifest(two.folder) == read_manifest(one.folder)
    times = [(machine.folder / "card.json").stat().st_mtime_ns for machine in (one, two)]
    assert times[0] == times[1]


def test_a_settled_result_needs_no_bucket(one: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    one.finish()
    one.settle(one.folder)
    monkeypatch.setattr(one, "_store", lambda: pytest.fail("it asked the bucket"))
    assert not one.settle(one.folder)


def test_a_workspace_without_a_bucket_is_left_alone(tmp_path: Path) -> None:
    alone = Machine("", tmp_path)
    alone.finish()
    alone.check()
    assert not alone.settle(alone.folder)
    assert list(alone.elsewhere("models")) == []
    assert not (alone.folder / MARK).exists()


def test_a_folder_that_belongs_to_another_bucket_is_pushed_to_this_one(one: Machine, two: Machine) -> None:
    one.finish()
    (one.folder / MARK).write_text("s3://another/bucket")
    one.settle(one.folder)
    assert two.settle(two.folder)


def test_the_first_of_two_different_results_counts(one: Machine, two: Machine) -> None:
    one.finish(b"first")
    two.finish(b"other")
    assert not one.settle(one.folder)
    assert two.settle(two.folder)
    assert two.content() == one.content()
    assert [path.name for path in two.folder.parent.iterdir()] == [NAME]


def test_two_machines_that_finish_at_once_end_with_the_same_result(uri: str, tmp_path: Path) -> None:
    machines = [Machine(uri, tmp_path / name) for name in ("one", "two", "three", "four")]
    for machine in machines:
        machine.finish(machine.workspace.parent.name.encode())
    with ThreadPoolExecutor(4) as pool:
        replaced = list(pool.map(lambda machine: machine.settle(machine.folder), machines))
    assert sorted(replaced) == [False, True, True, True]
    contents = [machine.content() for machine in machines]
    assert contents == contents[:1] * 4
    late = Machine(uri, tmp_path / "late")
    assert late.settle(late.folder)
    assert late.content() == contents[0]


def test_a_removed_result_is_gone_for_others_and_can_be_pushed_again(one: Machine, two: Machine) -> None:
    one.finish(b"former")
    one.settle(one.folder)
    one.remove(one.folder)
    assert not [path for path in objects(one.uri) if NAME in path]
    assert not two.settle(two.folder)
    one.settle(one.folder)
    assert two.settle(two.folder)


@pytest.mark.parametrize("damage", ["missing", "other"])
def test_a_damaged_result_is_removed_and_made_again(damage: str, one: Machine, two: Machine) -> None:
    one.finish()
    one.settle(one.folder)
    fs, _ = fsspec.url_to_fs(one.uri)
    (path,) = [path for path in objects(one.uri) if path.endswith("model.onnx")]
    fs.rm_file(path)
    if damage == "other":
        fs.pipe_file(path, b"x" * len(one.content()["model.onnx"]))
    assert not two.settle(two.folder)
    assert not two.folder.exists()
    two.finish()
    assert not two.settle(two.folder)
    three = Machine(one.uri, two.workspace.parent / "three")
    assert three.settle(three.folder)
    assert three.content() == two.content()


def test_a_manifest_may_not_name_files_outside_its_folder(one: Machine, two: Machine) -> None:
    one.finish()
    one.settle(one.folder)
    fs, _ = fsspec.url_to_fs(one.uri)
    (path,) = [path for path in objects(one.uri) if path.endswith(f"{NAME}/manifest.json")]
    fs.pipe_file(path, fs.cat_file(path).replace(b'"card.json": {', b'"../../card.json": {'))
    with pytest.raises(StorageError, match=NAME):
        two.settle(two.folder)
    assert not list(two.workspace.rglob("card.json"))


@pytest.mark.parametrize("content", [b"", b"[]", b'{"files": [], "result": {}}'], ids=["empty", "list", "local"])
def test_a_manifest_of_another_program_is_named(content: bytes, one: Machine) -> None:
    fs, root = fsspec.url_to_fs(one.uri)
    if one.uri.startswith("file"):
        fs.makedirs(f"{root}/models/{NAME}")
    fs.pipe_file(f"{root}/models/{NAME}/manifest.json", content)
    with pytest.raises(StorageError, match=f"{NAME}/manifest.json"):
        one.settle(one.folder)


def test_what_only_the_bucket_has_is_listed_with_its_manifest(one: Machine, two: Machine) -> None:
    assert list(two.elsewhere("models")) == []
    one.finish()
    one.settle(one.folder)
    ((folder, manifest),) = two.elsewhere("models")
    assert folder == two.folder
    assert manifest["inputs"] == {"model": "m" * 64}
    assert list(one.elsewhere("models")) == []


def test_the_folders_of_a_record_are_fetched(one: Machine, two: Machine) -> None:
    one.finish()
    one.settle(one.folder)
    two.fetch(Made(digest="d" * 64, folder=two.folder))
    assert two.content() == one.content()


SETTLE = """
import sys
from pathlib import Path
from agepipe.core.mirror import Mirror
mirror, folder = Mirror(sys.argv[1], Path(sys.argv[2])), Path(sys.argv[3])
mirror.check()
print("begins", flush=True)
mirror.settle(folder)
print("ended", flush=True)
"""


def settle_and_kill(machine: Machine, after: float) -> bool:
    """Settle in another process that is killed after some seconds; whether it ended before."""
    command = [sys.executable, "-c", SETTLE, machine.uri, str(machine.workspace), str(machine.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ.copy()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begins\n"
        time.sleep(after)
        process.kill()
        return "ended" in process.stdout.read()


MOMENTS = [0.0, 0.002, 0.004, 0.006, 0.008, 0.012, 0.016, 0.02, 0.03, 0.04, 0.06, 0.1, 0.15, 0.2]


@pytest.mark.slow
def test_a_push_that_is_killed_at_any_moment_is_completed(one: Machine, tmp_path: Path) -> None:
    cut = 0
    for number, after in enumerate(MOMENTS):
        one.folder = one.workspace / "models" / f"faces-{number:010d}"
        one.finish()
        cut += not settle_and_kill(one, after)
        before = Machine(one.uri, tmp_path / f"before-{number}")
        before.folder = before.workspace / "models" / one.folder.name
        visible = any(folder == before.folder for folder, _ in before.elsewhere("models"))
        assert before.settle(before.folder) == visible, "the manifest was there before the files"
        if visible:
            assert before.content() == one.content()
        else:
            assert not before.folder.exists()
        assert not one.settle(one.folder)
        after_it = Machine(one.uri, tmp_path / f"after-{number}")
        after_it.folder = after_it.workspace / "models" / one.folder.name
        assert after_it.settle(after_it.folder)
        assert after_it.content() == one.content()
    assert cut, "the moments are too late"


@pytest.mark.slow
def test_a_pull_that_is_killed_at_any_moment_leaves_nothing_behind(one: Machine, tmp_path: Path) -> None:
    one.finish()
    one.settle(one.folder)
    cut = 0
    for number, after in enumerate(MOMENTS):
        two = Machine(one.uri, tmp_path / f"two-{number}")
        cut += not settle_and_kill(two, after)
        if two.folder.exists():
            assert two.content() == one.content()
        sweep(two.workspace)
        left = [path.name for path in two.folder.parent.glob("*")] if two.folder.parent.exists() else []
        assert left in ([], [NAME])
        two.settle(two.folder)
        assert two.content() == one.content()
    assert cut, "the moments are too late"
