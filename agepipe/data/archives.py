"""Files in folders and archives, one after the other, without unpacking anything to disk.

The order is fixed: a folder's files by path, an archive's members as they lie in it, which is what lets a compressed
archive be read in one pass. An archive inside a folder is read as if it were a folder; one inside an archive is not.
Every file is an entry. One that cannot be read, a folder that cannot be listed, and an archive inside a folder that is
damaged are entries with a reason, and the rest goes on; only what was named itself and is unusable is an error.
Files that systems leave behind (hidden ones, `__MACOSX`, `Thumbs.db`, `desktop.ini`) are no part of a source.
"""

import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from agepipe.core.errors import SourceError
from agepipe.data.filenames import Reject
from agepipe.model.imaging import Limits

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
"""How a file's name ends that is read as an archive."""
LITTER = frozenset({"__macosx", "thumbs.db", "desktop.ini"})

_MEMBER_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError)
"""What `zipfile` raises over a damaged member, besides OSError."""
_DAMAGE = (*_MEMBER_DAMAGE, tarfile.TarError, OSError, ValueError, struct.error)
"""What the archive modules raise over files that are damaged or not archives."""
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA})
"""Ways of packing that are understood."""
_METHOD_NAMES = {1: "Shrink", 6: "Implode", 9: "Deflate64", 93: "Zstandard", 95: "XZ", 97: "WavPack", 98: "PPMd"}
_LONGEST_HEADER = 1 << 20
"""Bytes of a member's header in a tar: names and attributes; it is read whole."""
_PIECE = 1 << 20
"""Bytes that are read at a time behind the last member of a tar."""
_ENCRYPTED = 0x1


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a source. Members of an archive must be read before the next entry is asked for."""

    path: str
    """Where it lies in the source, with `/`; an archive counts as a folder."""
    size: int
    """Bytes."""
    read: Callable[[], bytes]
    """The content; raises OSError, or SourceError for a named archive that is cut short."""
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


def missing(path: Path) -> str:
    """Why there is nothing at a path, as the end of "the path ..."; empty where there is something."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a null byte is a ValueError
        return "does not exist"
    except OSError as error:
        return f"cannot be reached ({error.strerror})"
    return ""


def too_large(entry: Entry, limits: Limits) -> Reject | None:
    """Why a file is not even read: it has more bytes than any picture that is let through."""
    if entry.size <= limits.file:
        return None
    return Reject("too large", f"a file of {entry.size} bytes; at most {limits.file} are read.")


def check(archive: Path) -> None:
    """Open an archive and close it again.

    Raises:
        SourceError: it is not one, or its beginning (tar) or its list of contents (zip) is damaged.
    """
    with _named(archive):
        if archive.suffix.lower() == ".zip":
            zipfile.ZipFile(archive).close()
        else:
            _opened(archive).close()


def entries(location: Path, prefix: str = "") -> Iterator[Entry]:
    """All files of a folder or archive that are no litter, in their fixed order.

    Args:
        location: a folder or an archive.
        prefix: put before each path, such as `faces.tar/`.

    Raises:
        SourceError: the location is an archive that is damaged.
        OSError: the location is a folder that cannot be listed.
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
    path = escaped(entry.path)
    if path == entry.path:
        return entry
    reject = entry.reject or Reject("unparsable name", "its path is not UTF-8; rename the file or its folder.")
    return replace(entry, path=path, reject=reject)


def escaped(name: str) -> str:
    """Bytes that are not UTF-8, which Python keeps as surrogates, as backslash, x and two digits; all else stays."""
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def printable(path: str) -> str:
    """A path as one line of a terminal: characters that would control it are escaped."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in path)


class Found(NamedTuple):
    """What lies in a folder."""

    path: str
    """From the folder that was named, with `/`."""
    item: os.DirEntry[str]
    fault: OSError | None = None
    """Why a folder could not be listed."""

    def status(self) -> os.stat_result | None:
        """Its size and times, a link's own; None where it has vanished meanwhile."""
        try:
            return self.item.stat(follow_symlinks=False)
        except OSError:
            return None


def walk(folder: Path) -> Iterator[Found]:
    """Every file and link below, and every folder that cannot be listed; litter left out, links not followed.

    Raises:
        OSError: the folder itself cannot be listed.
    """
    stack: list[tuple[str, os.DirEntry[str] | None]] = [("", None)]
    while stack:
        prefix, here = stack.pop()
        try:
            with os.scandir(here or folder) as listed:
                items = [item for item in listed if not is_litter(item.name)]
        except OSError as error:
            if here is None:
                raise
            yield Found(prefix.removesuffix("/"), here, error)
            continue
        for item in items:
            if item.is_dir(follow_symlinks=False):
                stack.append((f"{prefix}{item.name}/", item))
            else:
                yield Found(prefix + item.name, item)


def _folder(folder: Path, prefix: str) -> Iterator[Entry]:
    for found in sorted(walk(folder), key=lambda found: found.path.split("/")):
        path, item, status = prefix + found.path, Path(found.item.path), found.status()
        if found.fault is not None:
            yield _refused(path, Reject("unreadable", f"the folder cannot be listed ({found.fault.strerror})."))
        elif status is None:
            yield _refused(path, Reject("unreadable", "it was there, but has vanished."))
        elif stat.S_ISLNK(status.st_mode):
            yield _refused(path, Reject("link", "links are not followed; put the file itself there."))
        elif not stat.S_ISREG(status.st_mode):
            yield _refused(path, Reject("not an image", "it is not a regular file."))
        elif is_archive(path):
            yield from _inside(item, path)
        else:
            yield Entry(path, status.st_size, item.read_bytes, at_any_time=True)


def _inside(archive: Path, path: str) -> Iterator[Entry]:
    """The members of an archive in a folder, and last, where it is damaged, the archive itself with the reason."""
    count = 0
    try:
        for entry in entries(archive, f"{path}/"):
            count += 1
            yield replace(entry, read=_alone(entry.read))
    except SourceError as error:
        before = f"; what follows its first {count} files is lost" if count else "; nothing of it is used"
        yield _refused(path, Reject("unreadable", f"{error.__cause__}{before}; fetch or pack the archive again."))


def _alone(read: Callable[[], bytes]) -> Callable[[], bytes]:
    """The same, where damage of the archive is that of one file among others."""

    def reading() -> bytes:
        try:
            return read()
        except SourceError as error:
            raise OSError(str(error.__cause__)) from error

    return reading


class _Member(tarfile.TarInfo):
    """A member whose header may not fill the memory."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if not self.isreg() and self.type not in tarfile.REGULAR_TYPES and self.size > _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size} bytes; at most {_LONGEST_HEADER} are read")
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]


def _opened(archive: Path) -> tarfile.TarFile:
    return tarfile.open(archive, "r:*", tarinfo=_Member)


def _tar(archive: Path, prefix: str) -> Iterator[Entry]:
    with _named(archive), _opened(archive) as tar:
        while member := tar.next():
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep every header in memory
            if not member.isdir() and not is_litter(member.name.replace("\\", "/")):
                yield _tar_entry(archive, tar, member, prefix)
        _check_end(tar)


def _check_end(tar: tarfile.TarFile) -> None:
    """Refuse an archive that does not end in zeros alone: tarfile takes damage, and a block of zeros, for the end.

    It is read to the end of the file, where a compressed one is compared with its sum.
    """
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    count = 0
    while piece := tar.fileobj.read(_PIECE):
        if piece.count(0) != len(piece):
            raise tarfile.ReadError(f"it is damaged after byte {tar.offset}")
        count += len(piece)
    if count < tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"it is damaged or cut short at byte {tar.offset}")


def _tar_entry(archive: Path, tar: tarfile.TarFile, member: tarfile.TarInfo, prefix: str) -> Entry:
    def read() -> bytes:
        with _named(archive):
            assert tar.fileobj is not None
            tar.fileobj.seek(member.offset_data)
            data = tar.fileobj.read(member.size)
            if len(data) != member.size:
                raise EOFError(f"'{escaped(member.name)}' is cut short")
            return data

    reject = _misplaced(member.name)
    if reject is None and (member.issym() or member.islnk()):
        reject = Reject("link", f"it is a link to '{escaped(member.linkname)}'; put the file itself there.")
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
            with opened.open(member) as file:  # no more than it announces, however much it is packed from
                return file.read(member.file_size + 1)
        except _MEMBER_DAMAGE as error:
            raise OSError(f"damaged in the archive: {error}") from error  # its neighbours may be sound

    reject = _misplaced(name)
    if reject is None and stat.S_ISLNK(member.external_attr >> 16):
        reject = Reject("link", "links are not followed; put the file itself there.")
    if reject is None and member.flag_bits & _ENCRYPTED:
        reject = Reject("unreadable", "it is encrypted; unpack it and give the folder.")
    if reject is None and member.compress_type not in _METHODS:
        method = _METHOD_NAMES.get(member.compress_type, f"method {member.compress_type}")
        reject = Reject("unreadable", f"it is packed by {method}, which is not read; unpack it and give the folder.")
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
            f"source: {escaped(str(archive))} cannot be read as a {' / '.join(SUFFIXES)} archive ({error}); fetch or "
            "pack it again."
        ) from error
