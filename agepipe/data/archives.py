"""Files in folders and archives, one after the other, without unpacking anything to disk.

The order is fixed: a folder's files by path, an archive's members as they lie in it, which is what lets a compressed
archive be read in one pass. An archive inside a folder is read as if it were a folder; one inside an archive is not.
Files that systems leave behind (hidden ones, `__MACOSX`, `Thumbs.db`, `desktop.ini`) are no part of a source.
"""

import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from agepipe.data.utkface import Reject
from agepipe.errors import SourceError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
"""How a file's name ends that is read as an archive."""
LITTER = frozenset({"__macosx", "thumbs.db", "desktop.ini"})

_MEMBER_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)
"""What `zipfile` raises over a member that is damaged or packed in a way it does not know, besides OSError."""
_DAMAGE = (*_MEMBER_DAMAGE, tarfile.TarError, OSError, UnicodeDecodeError)
"""What the archive modules raise over files that are damaged or not archives."""
_ENCRYPTED = 0x1


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a source. Members of an archive must be read before the next entry is asked for."""

    path: str
    """Where it lies in the source, with `/`; an archive counts as a folder."""
    size: int
    """Bytes."""
    read: Callable[[], bytes]
    """The content; raises OSError, or SourceError for an archive that is cut short."""
    at_any_time: bool = False
    """Whether `read` may be called later and from another thread."""
    reject: Reject | None = None
    """Why it must not be read, if so."""

    @property
    def name(self) -> str:
        """The file name without folders."""
        return self.path.rpartition("/")[2]

    @property
    def folder(self) -> str:
        """The name of the folder that it lies in; empty at the top of a source."""
        return self.path.rpartition("/")[0].rpartition("/")[2]


def is_archive(path: str) -> bool:
    """Whether the name promises an archive that can be read."""
    return path.lower().endswith(SUFFIXES)


def is_litter(path: str) -> bool:
    """Whether an operating system left it behind, itself or a folder that it lies in."""
    return any((part[:1] == "." and part not in (".", "..")) or part.lower() in LITTER for part in path.split("/"))


def check(archive: Path) -> None:
    """Open an archive and close it again.

    Raises:
        SourceError: it is not one, or its beginning (tar) or its list of contents (zip) is damaged.
    """
    with _named(archive):
        if archive.suffix.lower() == ".zip":
            zipfile.ZipFile(archive).close()
        else:
            tarfile.open(archive, "r:*").close()


def entries(location: Path, prefix: str = "") -> Iterator[Entry]:
    """All files of a folder or archive that are no litter, in their fixed order.

    Args:
        location: a folder or an archive.
        prefix: put before each path, such as `faces.tar/`.

    Raises:
        SourceError: an archive is damaged.
    """
    if location.is_dir():
        found = _folder(location, prefix)
    elif location.suffix.lower() == ".zip":
        found = _zip(location, prefix)
    else:
        found = _tar(location, prefix)
    yield from map(_as_text, found)


def _as_text(entry: Entry) -> Entry:
    """The entry itself, or one that is refused because its path cannot be written down as it is."""
    path = _escaped(entry.path)
    if path == entry.path:
        return entry
    reject = entry.reject or Reject("unparsable name", "its path is not UTF-8; rename the file or its folder.")
    return replace(entry, path=path, reject=reject)


def _escaped(name: str) -> str:
    """Bytes that are not UTF-8, which Python keeps as surrogates, as backslash, x and two digits; all else stays."""
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def walk(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Path (from `folder`, with `/`) and entry of every file and link below, litter left out, links not followed."""
    stack = [(folder, "")]
    while stack:
        here, prefix = stack.pop()
        with os.scandir(here) as found:
            for item in found:
                if is_litter(item.name):
                    continue
                if item.is_dir(follow_symlinks=False):
                    stack.append((Path(item.path), f"{prefix}{item.name}/"))
                else:
                    yield prefix + item.name, item


def _folder(folder: Path, prefix: str) -> Iterator[Entry]:
    found = sorted((path.split("/"), path, item) for path, item in walk(folder))
    for _, path, item in found:
        if item.is_symlink():
            yield _refused(prefix + path, Reject("link", "links are not followed; put the file itself there."))
        elif not item.is_file():
            yield _refused(prefix + path, Reject("not an image", "it is not a regular file."))
        elif is_archive(path):
            yield from entries(Path(item.path), f"{prefix}{path}/")
        else:
            yield Entry(prefix + path, item.stat().st_size, Path(item.path).read_bytes, at_any_time=True)


def _tar(archive: Path, prefix: str) -> Iterator[Entry]:
    with _named(archive), tarfile.open(archive, "r:*") as tar:
        while member := tar.next():
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep every header in memory
            if not member.isdir() and not is_litter(member.name.replace("\\", "/")):
                yield _tar_entry(archive, tar, member, prefix)
        _check_end(tar)


def _check_end(tar: tarfile.TarFile) -> None:
    """Refuse an archive that stops without its end marker, a block of zeros: tarfile takes damage for the end."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"it is damaged or cut short at byte {tar.offset}")


def _tar_entry(archive: Path, tar: tarfile.TarFile, member: tarfile.TarInfo, prefix: str) -> Entry:
    def read() -> bytes:
        with _named(archive):
            assert tar.fileobj is not None
            tar.fileobj.seek(member.offset_data)
            data = tar.fileobj.read(member.size)
            if len(data) != member.size:
                raise EOFError(f"'{_escaped(member.name)}' is cut short")
            return data

    reject = _misplaced(member.name)
    if reject is None and (member.issym() or member.islnk()):
        reject = Reject("link", f"it is a link to '{_escaped(member.linkname)}'; put the file itself there.")
    if reject is None and (not member.isreg() or member.issparse()):
        reject = Reject("not an image", "it is not a regular file.")
    return Entry(prefix + member.name.removeprefix("./"), member.size, read, reject=reject)


def _zip(archive: Path, prefix: str) -> Iterator[Entry]:
    with _named(archive), zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            name = member.filename.replace("\\", "/")
            if not name.endswith("/") and not is_litter(name):
                yield _zip_entry(opened, member, name, prefix)


def _zip_entry(opened: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, prefix: str) -> Entry:
    def read() -> bytes:
        try:
            return opened.read(member)
        except _MEMBER_DAMAGE as error:
            raise OSError(f"damaged in the archive: {error}") from error  # its neighbours may be sound

    reject = _misplaced(name)
    if reject is None and stat.S_ISLNK(member.external_attr >> 16):
        reject = Reject("link", "links are not followed; put the file itself there.")
    if reject is None and member.flag_bits & _ENCRYPTED:
        reject = Reject("unreadable", "it is encrypted; unpack it and give the folder.")
    return Entry(prefix + name, member.file_size, read, reject=reject)


def _misplaced(name: str) -> Reject | None:
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or parts[0].endswith(":"):
        return Reject("path leaves the archive", "members must lie inside their archive.")
    return Reject("not an image", "archives inside archives are not read; unpack it.") if is_archive(name) else None


def _refused(path: str, reject: Reject) -> Entry:
    def read() -> bytes:
        raise OSError(reject.detail)

    return Entry(path, 0, read, reject=reject)


@contextmanager
def _named(archive: Path) -> Iterator[None]:
    """Say which archive is damaged, and what to do about it."""
    try:
        yield
    except _DAMAGE as error:
        raise SourceError(
            f"source: {_escaped(str(archive))} cannot be read as a {' / '.join(SUFFIXES)} archive ({error}); fetch or "
            "pack it again."
        ) from error
