"""A result folder is there whole or not at all."""

import functools
import json
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from holders import order_around_a_kill

from agepipe.config.stages import LabelSettings
from agepipe.core import artifacts
from agepipe.core.artifacts import (
    MANIFEST,
    file_digest,
    partial,
    read_manifest,
    turn,
    unfinished,
    whole,
    write_manifest,
)
from agepipe.core.errors import DataError


def fill(folder: Path, text: str = "one") -> None:
    with whole(folder) as draft:
        (draft / "table.txt").write_text(text)
        write_manifest(draft, "relabel", LabelSettings(), {"catalogue": "c"}, {"count": 3})


def test_a_finished_folder_says_what_made_it(tmp_path: Path) -> None:
    fill(tmp_path / "labels" / "a")
    manifest = read_manifest(tmp_path / "labels" / "a")
    assert manifest is not None
    assert manifest["stage"] == "relabel"
    assert manifest["settings"] == {"ranges": "utkface", "conflicts": "keep"}
    assert manifest["inputs"] == {"catalogue": "c"}
    assert manifest["result"] == {"count": 3}
    assert manifest["files"] == ["table.txt"]
    assert manifest["agepipe"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="half way"), whole(tmp_path / "a") as draft:
        (draft / "table.txt").write_text("one")
        raise RuntimeError("half way")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_seen_before_the_end(tmp_path: Path) -> None:
    with whole(tmp_path / "a") as draft:
        write_manifest(draft, "relabel", LabelSettings(), {}, {})
        assert read_manifest(tmp_path / "a") is None
        assert not (tmp_path / "a").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_first_of_two_that_finish_is_kept(tmp_path: Path) -> None:
    with whole(tmp_path / "a") as draft:
        fill(tmp_path / "a", "first")
        (draft / "table.txt").write_text("second")
        write_manifest(draft, "relabel", LabelSettings(), {}, {})
    assert (tmp_path / "a" / "table.txt").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_a_half_done_removal_left_is_replaced(tmp_path: Path) -> None:
    fill(tmp_path / "a", "old")
    (tmp_path / "a" / "table.txt").unlink()
    assert read_manifest(tmp_path / "a") is None
    fill(tmp_path / "a", "new")
    assert (tmp_path / "a" / "table.txt").read_text() == "new"


def test_a_folder_that_cannot_be_put_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts.shutil, "rmtree", lambda *_, **__: None)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "other").touch()
    with pytest.raises(OSError, match="not empty"):
        fill(tmp_path / "a")


@pytest.mark.parametrize("text", ["not json", "[]", json.dumps({"stage": "relabel"})])
def test_a_damaged_manifest_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json: the manifest .* remove the folder"):
        read_manifest(tmp_path)


def test_the_digest_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert file_digest(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_work_on_one_folder_takes_turns(tmp_path: Path) -> None:
    order = []

    def second() -> None:
        with turn(tmp_path / "in" / "x"):
            order.append("second")

    with turn(tmp_path / "in" / "x"):
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(0.1)
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]
    assert list((tmp_path / "in").iterdir()) == []


def test_turns_never_overlap_though_each_removes_its_lock(tmp_path: Path) -> None:
    inside, most = [0], [0]

    def work(_: int) -> None:
        with turn(tmp_path / "x"):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.001)
            inside[0] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(100)))
    assert most == [1]


def test_an_unfinished_folder_stays_to_be_completed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), unfinished(tmp_path / "in" / "x") as draft:
        (draft / "half").touch()
        partial(draft).touch()
        raise KeyboardInterrupt
    assert not (tmp_path / "in" / "x").exists()
    with unfinished(tmp_path / "in" / "x") as draft:
        assert (draft / "half").exists()
        assert partial(draft).exists()
    assert [path.name for path in (tmp_path / "in").rglob("*")] == ["x", "half"]


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), artifacts.replacing(path) as draft:
        draft.write_text("half")
        raise KeyboardInterrupt
    assert (path.read_text(), list(tmp_path.iterdir())) == ("old", [path])
    with artifacts.replacing(path) as draft:
        draft.write_text("new")
    assert (path.read_text(), draft.suffix, list(tmp_path.iterdir())) == ("new", ".txt", [path])


HALF = """
import sys, time
from pathlib import Path
from agepipe.core.artifacts import replacing, whole
folder = Path(sys.argv[1])
with whole(folder / "labels" / "rows-0123456789") as draft, replacing(folder / "deployed" / "current.json") as file:
    (draft / "rows.parquet").write_text("half")
    file.write_text("half")
    print("ready", flush=True)
    time.sleep(300)
"""


def hidden(folder: Path) -> list[str]:
    return sorted(path.name[:-8] for path in folder.glob("*/.*"))


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_fills_is_not(tmp_path: Path) -> None:
    (tmp_path / "deployed").mkdir()
    with subprocess.Popen([sys.executable, "-c", HALF, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        left = hidden(tmp_path)
        assert len(left) == 2
        assert artifacts.sweep(tmp_path) == []
        assert hidden(tmp_path) == left
        process.kill()
    assert len(artifacts.sweep(tmp_path)) == 2
    assert hidden(tmp_path) == []


def test_a_sweep_leaves_all_that_is_no_draft(tmp_path: Path) -> None:
    names = (".rows-0123456789-progress", ".sample-a87eceaa1f.lock", ".x-deadbeef.lock", ".env", "rows-01234567")
    for name in names:
        (tmp_path / "labels" / name).mkdir(parents=True)
    other = tmp_path / "other"
    (other / ".rows-01234567").mkdir(parents=True)
    (tmp_path / "labels" / ".link-01234567").symlink_to(other)
    (tmp_path / "evaluations").symlink_to(other)
    assert artifacts.sweep(tmp_path / "nowhere") == []
    assert artifacts.sweep(tmp_path / "labels") == []
    (tmp_path / "labels" / ".rows-01234567").mkdir()
    assert [path.name for path in artifacts.sweep(tmp_path)] == [".rows-01234567"] * 2
    assert other.is_dir()
    assert {path.name for path in (tmp_path / "labels").iterdir()} == {*names, ".link-01234567"}


def test_a_maker_whose_fresh_draft_is_swept_takes_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between making a draft and locking it, a sweep elsewhere may take it for one that was left."""
    lock, taken = artifacts._lock, []

    def swept_first(draft: Path) -> int | None:
        if not taken:
            taken.append(draft)
            assert artifacts.sweep(tmp_path) == [draft]
        return lock(draft)

    monkeypatch.setattr(artifacts, "_lock", swept_first)
    fill(tmp_path / "labels" / "a")
    assert read_manifest(tmp_path / "labels" / "a") is not None
    assert [path.name for path in (tmp_path / "labels").iterdir()] == ["a"]


def test_without_locks_drafts_are_filled_and_never_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "LOCKED", False)
    monkeypatch.setattr(artifacts, "lock_descriptor", None)
    fill(tmp_path / "labels" / "a")
    with artifacts.replacing(tmp_path / "labels" / "b.txt") as draft:
        draft.write_text("new")
        assert artifacts.sweep(tmp_path) == []
    assert sorted(path.name for path in (tmp_path / "labels").iterdir()) == ["a", "b.txt"]


def test_a_turn_ends_with_a_killed_process(tmp_path: Path) -> None:
    assert order_around_a_kill(functools.partial(turn, tmp_path / "x")) == ["killed", "entered"]


def test_a_result_of_the_workspace_is_removed(tmp_path: Path) -> None:
    fill(tmp_path / "labels" / "a")
    artifacts.remove(tmp_path / "labels" / "a", tmp_path)
    artifacts.remove(tmp_path / "labels" / "a", tmp_path)
    assert list((tmp_path / "labels").iterdir()) == []


@pytest.mark.parametrize(
    "way", ["another workspace", "a link", "a linked folder", "the way up", "the workspace itself"]
)
def test_nothing_outside_the_workspace_is_removed(way: str, tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    fill(mine / "labels" / "a")
    fill(other / "labels" / "a")
    (mine / "labels" / "link").symlink_to(other / "labels" / "a")
    (mine / "splits").symlink_to(other / "labels")
    asked = {
        "another workspace": other / "labels" / "a", "a link": mine / "labels" / "link",
        "a linked folder": mine / "splits" / "a", "the way up": mine / ".." / "other" / "labels" / "a",
        "the workspace itself": mine,
    }[way]  # fmt: skip
    with pytest.raises(DataError, match=re.escape(str(asked))):
        artifacts.remove(asked, mine)
    assert read_manifest(other / "labels" / "a") is not None
    assert read_manifest(mine / "labels" / "a") is not None
