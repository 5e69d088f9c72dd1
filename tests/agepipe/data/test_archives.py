import os
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from photographs import chips, jpeg, tar_of, zip_of

from agepipe.core.errors import SourceError
from agepipe.data.archives import check, entries, is_litter, printable

MEMBERS = {"UTKFace/b.jpg": b"bee" * 999, "UTKFace/a.jpg": b"ay", "c.jpg": b"sea" * 400}


def contents(location: Path) -> list[tuple[str, bytes]]:
    return [(entry.path, entry.read()) for entry in entries(location)]


@pytest.mark.parametrize(("name", "mode"), [("x.tar", "w"), ("x.tar.gz", "w:gz"), ("x.tgz", "w:gz")])
def test_a_tar_is_read_in_its_own_order(tmp_path: Path, name: str, mode: str) -> None:
    archive = tar_of(tmp_path / name, MEMBERS, mode)
    check(archive)
    assert contents(archive) == list(MEMBERS.items())


def test_a_zip_is_read_in_its_own_order(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "x.zip", MEMBERS)
    check(archive)
    assert contents(archive) == list(MEMBERS.items())


def test_a_folder_is_read_by_path_with_the_archives_in_it(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "a.jpg", "b/10.jpg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(name.encode())
    tar_of(tmp_path / "in" / "b" / "inner.tar", {"x/y.jpg": b"inner"})
    found = contents(tmp_path / "in")
    assert [path for path, _ in found] == ["a.jpg", "b/10.jpg", "b/2.jpg", "b/inner.tar/x/y.jpg"]
    assert dict(found)["b/inner.tar/x/y.jpg"] == b"inner"


@pytest.mark.parametrize(
    "path", [".DS_Store", "a/.hidden.jpg", "__MACOSX/a/._1.jpg", "Thumbs.db", "a/desktop.ini", ".git/x.jpg"]
)
def test_hidden_and_system_files_are_litter(path: str) -> None:
    assert is_litter(path)


@pytest.mark.parametrize("path", ["a.jpg", "./a.jpg", "../a.jpg", "readme.txt"])
def test_other_files_are_no_litter(path: str) -> None:
    assert not is_litter(path)


def test_litter_is_no_part_of_any_source(tmp_path: Path) -> None:
    members = {"__MACOSX/._a.jpg": b"1", ".DS_Store": b"2", "a.jpg": b"3", "Thumbs.db": b"4"}
    for name, data in members.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    for location in (tmp_path / "in", tar_of(tmp_path / "x.tar", members), zip_of(tmp_path / "x.zip", members)):
        assert contents(location) == [("a.jpg", b"3")]


@pytest.mark.parametrize("name", ["../x.jpg", "a/../../x.jpg", "/etc/x.jpg", "C:\\x.jpg", "..\\x.jpg"])
def test_members_that_leave_the_archive_are_refused(tmp_path: Path, name: str) -> None:
    for archive in (tar_of(tmp_path / "x.tar", {name: b"1"}), zip_of(tmp_path / "x.zip", {name: b"1"})):
        (entry,) = entries(archive)
        assert entry.reject is not None
        assert entry.reject.reason == "path leaves the archive"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        info = tarfile.TarInfo("link.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    (entry,) = entries(tmp_path / "x.tar")
    assert entry.reject is not None
    assert entry.reject.reason == "link"


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link.jpg")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    (entry,) = entries(tmp_path / "x.zip")
    assert entry.reject is not None
    assert entry.reject.reason == "link"


def test_links_in_a_folder_are_refused_and_not_followed(tmp_path: Path) -> None:
    outside = chips(tmp_path / "outside", 2)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file.jpg").symlink_to(outside[0])
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "outside")
    found = list(entries(tmp_path / "in"))
    assert [(entry.path, entry.reject and entry.reject.reason) for entry in found] == [
        ("file.jpg", "link"),
        ("folder", "link"),
    ]
    with pytest.raises(OSError, match="links are not followed"):
        found[0].read()


def test_an_archive_in_an_archive_is_refused(tmp_path: Path) -> None:
    (entry,) = entries(zip_of(tmp_path / "x.zip", {"inner.tar.gz": b"1"}))
    assert entry.reject is not None
    assert "archives inside archives" in entry.reject.detail


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.zip"])
def test_what_is_no_archive_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no archive at all" * 99)
    with pytest.raises(SourceError, match=name):
        check(tmp_path / name)


@pytest.mark.parametrize("cut", [0.3, 0.5, 0.8])
@pytest.mark.parametrize(("name", "mode"), [("x.tar", "w"), ("x.tar.gz", "w:gz")])
def test_a_tar_that_stops_early_is_named(tmp_path: Path, name: str, mode: str, cut: float) -> None:
    archive = tar_of(tmp_path / name, {f"{n}.jpg": jpeg(n) for n in range(40)}, mode)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(len(whole) * cut)])
    with pytest.raises(SourceError, match=name):
        contents(archive)


def test_a_tar_cut_between_two_members_is_named(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "x.tar", {"a.jpg": bytes(512), "b.jpg": bytes(512)})
    archive.write_bytes(archive.read_bytes()[:1024])
    with pytest.raises(SourceError, match="cut short at byte 1024"):
        contents(archive)


def test_a_damaged_header_inside_a_tar_is_not_taken_for_its_end(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "x.tar", {"a.jpg": bytes(512), "b.jpg": bytes(512)})
    data = bytearray(archive.read_bytes())
    data[1024:1100] = b"#" * 76
    archive.write_bytes(data)
    with pytest.raises(SourceError, match="damaged"):
        contents(archive)


def test_one_damaged_member_of_a_zip_leaves_its_neighbours(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.jpg", b"a" * 500)
        archive.writestr("b.jpg", b"b" * 500)
    data = (tmp_path / "x.zip").read_bytes().replace(b"a" * 500, b"a" * 499 + b"z")
    (tmp_path / "x.zip").write_bytes(data)
    members = entries(tmp_path / "x.zip")
    with pytest.raises(OSError, match="damaged in the archive"):
        next(members).read()
    assert next(members).read() == b"b" * 500
    assert next(members, None) is None


def test_a_damaged_lzma_member_of_a_zip_leaves_its_neighbours(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.jpg", bytes(range(256)))
        archive.writestr("b.jpg", b"b" * 500)
    data = bytearray((tmp_path / "x.zip").read_bytes())
    data[50:80] = bytes(byte ^ 0xFF for byte in data[50:80])
    (tmp_path / "x.zip").write_bytes(data)
    members = entries(tmp_path / "x.zip")
    with pytest.raises(OSError, match="damaged in the archive"):
        next(members).read()
    assert next(members).read() == b"b" * 500


def test_a_damaged_xz_is_named(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "x.tar", {f"{n}.jpg": jpeg(n) for n in range(40)}, "w:xz")
    data = bytearray(archive.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    archive.write_bytes(data)
    with pytest.raises(SourceError, match=r"x\.tar cannot be read"):
        contents(archive)


def test_names_that_are_not_utf8_are_refused_and_escaped(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"1")
    (tmp_path / "café.jpg").write_bytes(b"1")
    (tmp_path / "link.jpg").symlink_to(os.fsdecode(b"\xff.jpg"))
    tar_of(folder / "x.tar", {"b.jpg": b"1"})
    found = {entry.path: entry.reject and entry.reject.reason for entry in entries(tmp_path)}
    assert found == {
        "café.jpg": None,
        "caf\\xe9/a.jpg": "unparsable name",
        "caf\\xe9/x.tar/b.jpg": "unparsable name",
        "link.jpg": "link",
    }


def test_what_is_said_of_a_link_can_be_written_down(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        info = tarfile.TarInfo("link.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, os.fsdecode(b"\xff.jpg")
        tar.addfile(info)
    (entry,) = entries(tmp_path / "x.tar")
    assert entry.reject is not None
    assert "'\\xff.jpg'" in entry.reject.detail


def test_a_zip_whose_names_are_not_what_they_claim_is_named(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "x.zip", {"é.jpg": b"1"})
    archive.write_bytes(archive.read_bytes().replace("é".encode(), b"\xff\xfe"))
    with pytest.raises(SourceError, match=r"x\.zip cannot be read"):
        check(archive)


def archive_bytes(path: Path, mode: str) -> bytes:
    return tar_of(path, {f"{n}.jpg": bytes([n]) * 600 for n in range(1, 7)}, mode).read_bytes()


def test_a_block_of_zeros_among_the_members_of_a_tar_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    data = archive_bytes(path, "w")
    third = 2 * (512 + 1024)
    path.write_bytes(data[:third] + bytes(512) + data[third + 512 :])
    with pytest.raises(SourceError, match=f"damaged after byte {third}"):
        list(entries(path))


def test_two_tars_in_one_file_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(2 * archive_bytes(path, "w"))
    with pytest.raises(SourceError, match="damaged after byte"):
        list(entries(path))


def test_a_compressed_tar_is_compared_with_its_sum(tmp_path: Path) -> None:
    path = tmp_path / "x.tgz"
    data = archive_bytes(path, "w:gz")
    assert len(list(entries(path))) == 6
    path.write_bytes(data[:-8] + bytes([data[-8] ^ 1]) + data[-7:])
    with pytest.raises(SourceError, match="CRC"):
        list(entries(path))


def test_a_member_that_is_larger_than_it_announces_is_read_no_further(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a.jpg", bytes(64 << 20))
    size = (64 << 20).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(size, (1000).to_bytes(4, "little")))
    tracemalloc.start()
    for entry in entries(path):
        with pytest.raises(OSError, match="damaged in the archive"):
            entry.read()
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()


def test_a_path_that_would_control_a_terminal_is_escaped() -> None:
    assert printable("a\x1b]0;b\x07\n ü.jpg") == r"a\x1b]0;b\x07\n ü.jpg"
