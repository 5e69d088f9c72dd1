"""Outputs that cannot be written are refused before the work, and work that is done is never lost."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from unprivileged import unprivileged

from agepipe.core.errors import ConfigError, OutputError
from agepipe.serving.outputs import check_apart, check_folder, check_output, save

SUFFIXES = (".csv", ".jsonl")
ASK = """
import sys
from pathlib import Path
from agepipe.core.errors import ConfigError
from agepipe.serving.outputs import check_folder, check_output
for ask in (lambda: check_output("--output", Path(sys.argv[1]) / "x.csv", (".csv",)),
            lambda: check_folder("--workspace", Path(sys.argv[1]) / "new" / "workspace")):
    try:
        ask()
    except ConfigError as error:
        print(error)
"""


def test_a_folder_without_write_permission_is_refused(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    done = subprocess.run(
        [*unprivileged(), sys.executable, "-c", ASK, str(closed)], capture_output=True, text=True, check=True
    )
    output, workspace = done.stdout.splitlines()
    assert "--output" in output and str(closed) in output
    assert "--workspace" in workspace and str(closed) in workspace
    assert list(closed.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["folder.csv", "file.txt/x.csv", "nowhere/x.csv", f"{'x' * 300}.csv", "x.txt", "loop/x.csv"]
)  # fmt: skip
def test_an_impossible_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file.txt").touch()
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="--output"):
        check_output("--output", tmp_path / name, SUFFIXES)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["file.txt", "file.txt/workspace", f"{'x' * 300}/workspace", "loop/workspace"])
def test_an_impossible_folder_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "file.txt").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigError, match="--workspace"):
        check_folder("--workspace", tmp_path / name)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full to be a full disk")
def test_a_full_disk_is_found_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe is written, not only made: a quota lets an empty file be made."""
    real = Path.open

    def full(self: Path, mode: str = "r", **more: object) -> object:
        return real(Path("/dev/full") if self.name.startswith(".probe") else self, mode, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ConfigError, match="the disk is full"):
        check_folder("--workspace", tmp_path / "workspace")


def test_the_longest_name_that_the_file_system_takes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / f"{'x' * (os.pathconf(tmp_path, 'PC_NAME_MAX') - 4)}.csv"
    check_output("--output", path, SUFFIXES)
    save(path, lambda draft: draft.write_text("result"))
    assert path.read_text() == "result"
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_a_result_is_kept_elsewhere_where_its_folder_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(OutputError) as told:
        save(tmp_path / "gone" / "x.csv", lambda draft: draft.write_text("result"))
    (kept,) = tmp_path.glob("agepipe-*/x.csv")
    assert kept.read_text() == "result"
    assert str(kept) in str(told.value) and str(tmp_path / "gone" / "x.csv") in str(told.value)


@pytest.mark.parametrize("without", ["working folder", "home"])
def test_a_result_is_kept_where_the_working_folder_or_the_home_has_gone_too(
    without: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.chdir(there)
    if without == "home":
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        monkeypatch.setenv("HOME", "~")  # what Path.home finds where no home is known
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    else:
        there.rmdir()
    with pytest.raises(OutputError) as told:
        save(tmp_path / "gone" / "x.csv", lambda draft: draft.write_text("result"))
    (kept,) = tmp_path.rglob("agepipe-*/x.csv")
    assert kept.read_text() == "result" and str(kept) in str(told.value)


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    output = tmp_path / "x.csv"
    output.symlink_to(Path("there") / "y.csv")
    check_output("--output", output, SUFFIXES)
    save(output, lambda draft: draft.write_text("result"))
    assert output.is_symlink()
    assert (tmp_path / "there" / "y.csv").read_text() == "result"


def test_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").symlink_to(tmp_path / "nowhere" / "y.csv")
    with pytest.raises(ConfigError, match="nowhere"):
        check_output("--output", tmp_path / "x.csv", SUFFIXES)


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="UTF-8"):
        check_output("--output", tmp_path / os.fsdecode(b"b\xff.csv"), SUFFIXES)


@pytest.mark.parametrize("how", ["itself", "a link"])
def test_a_source_is_not_written_over(tmp_path: Path, how: str) -> None:
    source, output = tmp_path / "film.mp4", tmp_path / "other.mp4"
    source.write_bytes(b"film")
    check_apart("--output", output, str(source))
    check_apart("--output", output, "0")
    if how == "a link":
        output.symlink_to(source)
    with pytest.raises(ConfigError, match="--output"):
        check_apart("--output", output if how == "a link" else source, str(source))
