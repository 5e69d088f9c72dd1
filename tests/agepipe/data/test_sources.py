import importlib.util
import os
import re
import shutil
from pathlib import Path

import pytest
from photographs import chips

from agepipe.config.runtime import Runtime
from agepipe.config.stages import SourceSettings
from agepipe.core.errors import SourceError
from agepipe.data.archives import entries
from agepipe.data.records import Source
from agepipe.data.sample import source as sample
from agepipe.data.sources import check, fingerprint, prefixes


def source(runtime: Runtime, *data: Path | str, **settings: int) -> Source:
    return fingerprint(SourceSettings(data=tuple(map(str, data)), **settings), runtime)


def packed(folder: Path, archive: Path, kind: str) -> Path:
    return Path(shutil.make_archive(str(archive), kind, folder))


def test_a_folder_is_told_by_names_sizes_and_times_wherever_it_lies(tmp_path: Path, runtime: Runtime) -> None:
    chips(tmp_path / "one" / "faces", 3)
    first = source(runtime, tmp_path / "one" / "faces")
    shutil.copytree(tmp_path / "one" / "faces", tmp_path / "two" / "faces")
    assert source(runtime, tmp_path / "two" / "faces").digest == first.digest


def test_a_file_added_renamed_or_changed_makes_another_source(tmp_path: Path, runtime: Runtime) -> None:
    made = chips(tmp_path / "faces", 3)
    digests = {source(runtime, tmp_path / "faces").digest}
    chips(tmp_path / "faces", 1, first=50)
    digests.add(source(runtime, tmp_path / "faces").digest)
    made[0].rename(made[0].with_name("9_0_0_20170104020210475.jpg"))
    digests.add(source(runtime, tmp_path / "faces").digest)
    made[1].write_bytes(made[1].read_bytes() + b"\0")
    digests.add(source(runtime, tmp_path / "faces").digest)
    os.utime(made[2], ns=(1, 1))
    digests.add(source(runtime, tmp_path / "faces").digest)
    assert len(digests) == 5


def test_a_name_that_is_not_utf8_is_part_of_the_source(tmp_path: Path, runtime: Runtime) -> None:
    made = chips(tmp_path / "faces", 2)
    before = source(runtime, tmp_path / "faces").digest
    made[0].rename(made[0].with_name(os.fsdecode(b"caf\xe9.jpg")))
    assert source(runtime, tmp_path / "faces").digest != before


def test_litter_does_not_make_another_source(tmp_path: Path, runtime: Runtime) -> None:
    chips(tmp_path / "faces", 3)
    before = source(runtime, tmp_path / "faces")
    (tmp_path / "faces" / ".DS_Store").write_bytes(b"1")
    assert source(runtime, tmp_path / "faces") == before


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["utkface.tar.gz"], "utkface"),
        (["UTKFace-1.tar", "UTKFace-2.tar"], "utkface"),
        (["My Faces.zip"], "my-faces"),
        (["part1.zip", "part2.zip"], "part"),
        (["old.zip", "new.zip", "x.zip"], "old-and-2-more"),
    ],
)
def test_names_are_readable(tmp_path: Path, runtime: Runtime, files: list[str], name: str) -> None:
    chips(tmp_path / "faces", 1)
    for file in files:
        kind = "zip" if file.endswith("zip") else "gztar" if file.endswith("gz") else "tar"
        packed(tmp_path / "faces", tmp_path / "made", kind)
        made = next(path for path in tmp_path.iterdir() if path.name.startswith("made."))
        made.rename(tmp_path / file)
    assert source(runtime, *(tmp_path / file for file in files)).name == name


def test_paths_tell_several_locations_apart(tmp_path: Path, runtime: Runtime) -> None:
    chips(tmp_path / "3-5", 2)
    archive = packed(tmp_path / "3-5", tmp_path / "faces", "tar")
    assert prefixes(source(runtime, tmp_path / "3-5")) == [""]
    assert prefixes(source(runtime, archive)) == ["faces.tar/"]
    assert prefixes(source(runtime, tmp_path / "3-5", archive)) == ["3-5/", "faces.tar/"]


def test_an_absent_path_is_named(tmp_path: Path, runtime: Runtime) -> None:
    with pytest.raises(SourceError, match=r"absent does not exist; give a folder"):
        source(runtime, tmp_path / "absent")


def test_an_empty_folder_is_named(tmp_path: Path, runtime: Runtime) -> None:
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    with pytest.raises(SourceError, match=r"empty holds no files; give a folder"):
        source(runtime, tmp_path / "empty")


def test_no_data_at_all_is_refused(runtime: Runtime) -> None:
    with pytest.raises(SourceError, match=r"source\.data is empty"):
        source(runtime)


@pytest.mark.parametrize("name", ["notes.txt", "a.tar", "b.tar.gz", "c.zip", "pipe.tar", "empty", "nul\0.tar"])
def test_what_cannot_hold_photographs_is_refused_at_the_first_look(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "empty":
        path.mkdir()
    elif name == "pipe.tar":
        os.mkfifo(path)
    elif "\0" not in name:
        path.write_bytes(b"words" * 999)
    with pytest.raises(SourceError, match=re.escape(str(path))):
        check(["sample", str(path)])


def test_the_sample_is_drawn_once_and_told_by_its_settings_alone(runtime: Runtime) -> None:
    first = source(runtime, "sample", sample_count=28, sample_seed=3)
    (folder,) = first.locations
    assert first.name == "sample"
    assert len(list(entries(folder))) == 28
    marked = next(path for path in folder.rglob("*") if path.is_file())
    os.utime(marked, ns=(1, 1))
    assert source(runtime, "sample", sample_count=28, sample_seed=3) == first
    assert marked.stat().st_mtime_ns == 1
    for count, seed in ((28, 4), (29, 3)):
        assert source(runtime, "sample", sample_count=count, sample_seed=seed).digest != first.digest
    assert list(folder.parent.glob("*.partial")) == []


def test_a_killed_drawing_of_the_sample_goes_on(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    write = sample._write

    def killed(folder: Path, chips: list[sample.Chip], seed: int) -> int:
        write(folder, chips[:9], seed)
        (folder / f".{chips[9].name}.part").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(sample, "_write", killed)
        patched.setattr(sample, "_CHUNK", 28)  # in this process, where the other function is known
        source(runtime, "sample", sample_count=28, sample_seed=3)
    (left,) = (path for path in (runtime.workspace / "samples").iterdir() if path.is_dir())
    before = {path.name: path.stat().st_mtime_ns for path in left.glob("[!.]*")}
    (folder,) = source(runtime, "sample", sample_count=28, sample_seed=3).locations
    assert len(before) == 9
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}.items()
    sample.draw(runtime.workspace / "alone", 28, 3)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in (runtime.workspace / "alone").iterdir()
    }
    assert not left.exists()


def test_a_malformed_kaggle_name_is_refused(runtime: Runtime) -> None:
    with pytest.raises(SourceError, match="not of the form kaggle:OWNER/NAME"):
        source(runtime, "kaggle:utkface")


@pytest.mark.skipif(importlib.util.find_spec("kagglehub") is not None, reason="kagglehub is installed")
def test_kaggle_without_its_extra_says_what_to_install(runtime: Runtime) -> None:
    with pytest.raises(SourceError, match="uv run --extra kaggle agepipe"):
        source(runtime, "kaggle:jangedoo/utkface-new")


def test_kaggle_without_a_network_is_one_sentence(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("kagglehub")
    monkeypatch.setenv("KAGGLE_API_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    with pytest.raises(SourceError, match="'jangedoo/utkface-new' could not be downloaded"):
        source(runtime, "kaggle:jangedoo/utkface-new")
