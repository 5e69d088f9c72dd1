"""One entry of a folder that cannot be used is one reject with its reason; every other file is still given."""

import io
import os
import shutil
import socket
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from photographs import chips, jpeg, tar_of, zip_of

from agepipe.config.runtime import Runtime
from agepipe.config.stages import IngestSettings, SourceSettings
from agepipe.core.errors import SourceError
from agepipe.data.archives import Entry, entries
from agepipe.data.sources import fingerprint
from agepipe.serving import pictures
from agepipe.serving.sources import Pictures
from tasks.data import ingest

AROUND = 12
"""Good photographs before and behind each bad entry."""


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def bad_zip(path: Path) -> None:
    path.write_bytes(os.urandom(3000))


def cut_zip(path: Path) -> None:
    cut(zip_of(path, {f"{n}.jpg": jpeg(n) for n in range(9)}))


def encrypted_zip(path: Path) -> None:
    zip_of(path, {"a.jpg": jpeg(1)})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)


def deflate64_zip(path: Path) -> None:
    zip_of(path, {"a.jpg": jpeg(1)})
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        data[data.index(mark) + place] = 9
    path.write_bytes(data)


def bad_tar(path: Path) -> None:
    path.write_bytes(os.urandom(3000))


def header_bomb(path: Path) -> None:
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("x")
        info.type, info.size = tarfile.XHDTYPE, 64 << 20
        tar.addfile(info, io.BytesIO(bytes(64 << 20)))


def pipe(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path may not be long
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


BAD = {
    "m.zip": (bad_zip, "unreadable"), "n.zip": (cut_zip, "unreadable"), "m.tar": (bad_tar, "unreadable"),
    "m.tar.gz": (bad_tar, "unreadable"), "o.tgz": (header_bomb, "unreadable"),
    "m.jpg": (pipe, "not an image"), "n.jpg": (unix_socket, "not an image"),
    "p.zip": (pipe, "not an image"), "l.jpg": (lambda path: path.symlink_to("nowhere"), "link"),
    "loop": (lambda path: path.symlink_to("."), "link"),
}  # fmt: skip
INSIDE = {"encrypted.zip": (encrypted_zip, "encrypted"), "other.zip": (deflate64_zip, "Deflate64")}


def given(folder: Path) -> dict[str, str]:
    """Reason of each entry, by path; empty for one that can be read."""
    found = {}
    for entry in entries(folder):
        reason = entry.reject.reason if entry.reject else ""
        if not reason:
            try:
                entry.read()
            except OSError:
                reason = "unreadable"
        found[entry.path] = reason
    return found


def surrounded(folder: Path) -> list[str]:
    made = [*chips(folder / "a", AROUND), *chips(folder / "z", AROUND, first=50)]
    return [str(path.relative_to(folder)) for path in made]


def test_every_kind_of_bad_entry_is_one_reject_and_the_rest_is_given(tmp_path: Path) -> None:
    good = surrounded(tmp_path)
    for name, (make, _) in BAD.items():
        make(tmp_path / name)
    assert given(tmp_path) == {**dict.fromkeys(good, ""), **{name: reason for name, (_, reason) in BAD.items()}}


@pytest.mark.parametrize("name", INSIDE)
def test_a_member_that_cannot_be_unpacked_says_how_it_is_packed(name: str, tmp_path: Path, runtime: Runtime) -> None:
    make, word = INSIDE[name]
    make(tmp_path / name)
    (entry,) = entries(tmp_path / name)
    assert entry.reject is not None
    assert entry.reject.reason == "unreadable"
    assert word in entry.reject.detail
    source = fingerprint(SourceSettings(data=(str(tmp_path / name),)), runtime)
    with pytest.raises(SourceError) as caught:
        ingest(source, IngestSettings(size=32), runtime)
    assert word in str(caught.value), "the reason is in the error itself"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
@pytest.mark.parametrize("keep", [0.3, 0.7, 0.95])
def test_what_lies_before_the_damage_of_an_archive_is_used(tmp_path: Path, mode: str, keep: float) -> None:
    good = surrounded(tmp_path)
    archive = tar_of(tmp_path / "m.tar", {f"{n:02}.jpg": jpeg(n, 200, 200) for n in range(40)}, mode)
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * keep)])
    found = given(tmp_path)
    assert found["m.tar"] == "unreadable"
    assert all(found[path] == "" for path in good)
    inside = [reason for path, reason in found.items() if path.startswith("m.tar/")]
    assert not any(inside[:-1]), "only the last may be cut"
    if mode == "w":
        assert len(inside) >= int(40 * keep) - 1


def test_ingest_keeps_all_others(tmp_path: Path, runtime: Runtime) -> None:
    faces = tmp_path / "faces"
    good = surrounded(faces)
    for name, (make, _) in BAD.items():
        make(faces / name)
    inside = {path.name: path.read_bytes() for path in chips(tmp_path / "inside", 20, first=200)}
    cut(tar_of(faces / "q.tar", inside))
    source = fingerprint(SourceSettings(data=(str(faces),)), runtime)
    catalogue = ingest(source, IngestSettings(size=32, max_reject_share=0.9), runtime)
    table, rejects = pl.read_parquet(catalogue.table), pl.read_parquet(catalogue.rejects)
    assert set(good) <= set(table["path"])
    assert any(path.startswith("q.tar/") for path in table["path"])
    assert {*BAD, "q.tar"} <= set(rejects["path"])
    assert all(rejects["detail"])


def test_pictures_of_a_folder_give_all_others(tmp_path: Path) -> None:
    good = surrounded(tmp_path)
    for name, (make, _) in BAD.items():
        make(tmp_path / name)
    found = {picture.path: picture.reason for picture in pictures.read([tmp_path])}
    assert found == {
        **{f"{tmp_path}/{name}": "" for name in good},
        **{f"{tmp_path}/{name}": reason for name, (_, reason) in BAD.items()},
    }
    source = Pictures(tmp_path)
    assert len(list(source.frames())) == len(good)
    assert len(source.notes()) == len(BAD)


@pytest.mark.parametrize("name", ["m.jpg", "m.zip"])
def test_a_pipe_that_is_named_itself_is_refused_and_not_waited_for(tmp_path: Path, name: str, runtime: Runtime) -> None:
    pipe(tmp_path / name)
    (picture,) = pictures.read([tmp_path / name])
    assert picture.reason == "not an image"
    with pytest.raises(SourceError, match=name):
        fingerprint(SourceSettings(data=(str(tmp_path / name),)), runtime)


def test_a_named_file_whose_name_is_not_utf8_is_read(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    path.write_bytes(jpeg(1))
    (picture,) = pictures.read([path])
    assert picture.image is not None
    assert picture.path.encode() == f"{tmp_path}/caf\\xe9.jpg".encode()


def test_files_that_vanish_during_the_walk_are_rejects(tmp_path: Path) -> None:
    made = chips(tmp_path / "faces", 30)
    gone = {path.name for path in made[25:29]}
    walked: list[Entry] = []
    for entry in entries(tmp_path / "faces"):
        walked.append(entry)
        if len(walked) == 5:
            for name in gone:
                (tmp_path / "faces" / name).unlink()
    assert len(walked) == 30
    assert {entry.name: entry.reject.reason for entry in walked if entry.reject} == dict.fromkeys(gone, "unreadable")


@pytest.fixture
def closed() -> Iterator[Path]:
    """A folder with photographs and, between them, a folder that may not be listed and a file that may not be read."""
    folder = Path(tempfile.mkdtemp(prefix="agepipe-closed-"))
    chips(folder / "a", 3)
    chips(folder / "m", 3)
    chips(folder / "z", 3, first=9)
    next((folder / "a").iterdir()).chmod(0)
    (folder / "m").chmod(0)
    folder.chmod(0o755)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root may read everything
    yield folder
    if root:
        os.seteuid(0)
    (folder / "m").chmod(0o700)
    shutil.rmtree(folder)


def test_a_folder_that_may_not_be_listed_is_one_reject(closed: Path) -> None:
    found = given(closed)
    assert found["m"] == "unreadable"
    assert len(found) == 7
    assert sorted(found.values()) == [""] * 5 + ["unreadable"] * 2


def test_a_folder_that_may_not_be_listed_is_part_of_the_source(runtime: Runtime, closed: Path) -> None:
    assert fingerprint(SourceSettings(data=(str(closed),)), runtime).locations == (closed,)
    with pytest.raises(SourceError, match=r"/m/x cannot be reached"):
        fingerprint(SourceSettings(data=(str(closed / "m" / "x"),)), runtime)


def test_a_zip_member_that_announces_too_much_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as made, made.open("bomb.jpg", "w") as bomb:
        for _ in range(200):
            bomb.write(bytes(1 << 20))
    (picture,) = pictures.read([tmp_path / "x.zip"])
    assert picture.reason == "too large"
    assert str(200 << 20) in picture.detail
