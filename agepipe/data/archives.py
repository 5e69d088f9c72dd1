"""Files in folders and archives, one after the other; nothing is unpacked to disk.

The order is fixed: the files of a folder by path, the members of an archive in the order of the archive, so that a
compressed archive is read in one pass. An archive inside a folder is read like a folder; an archive inside an archive
is not read. Every file is an entry. A file that cannot be read, a folder that cannot be listed and a damaged archive
inside a folder are entries with a reason, and reading continues. Only a location that the user named and that is
unusable raises an error. Files that operating systems add (hidden files, `__MACOSX`, `Thumbs.db`, `desktop.ini`) are
skipped.
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
"""Endings of files that are read as archives."""
LITTER = frozenset({"__macosx", "thumbs.db", "desktop.ini"})

_MEMBER_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError)
"""What `zipfile` raises over a damaged member, besides OSError."""
_DAMAGE = (*_MEMBER_DAMAGE, tarfile.TarError, OSError, ValueError, struct.error)
"""What the archive modules raise over files that are damaged or not archives."""
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA})
"""Compression methods that can be read."""
_METHOD_NAMES = {1: "Shrink", 6: "Implode", 9: "Deflate64", 93: "Zstandard", 95: "XZ", 97: "WavPack", 98: "PPMd"}
_LONGEST_HEADER = 1 << 20
"""Maximum bytes of a member's header in a tar (names and attributes), which `tarfile` reads into memory at once."""
_PIECE = 1 << 20
"""Bytes that are read at a time after the last member of a tar."""
_ENCRYPTED = 0x1


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a source. A member of an archive must be read before the iterator is advanced."""

    path: str
    """Path in the source, with `/`; an archive counts as a folder."""
    size: int
    """Bytes."""
    read: Callable[[], bytes]
    """Returns the content; raises OSError, or SourceError for a named archive that is truncated."""
    at_any_time: bool = False
    """Whether `read` may be called later and from another thread."""
    reject: Reject | None = None
    """Why the file must not be read; None for a file that may be."""

    @property
    def name(self) -> str:
        """The file name without folders."""
        return self.path.rpartition("/")[2]

    @property
    def folder(self) -> str:
        """The name of the folder that contains it; empty at the top of a source."""
        return self.path.rpartition("/")[0].rpartition("/")[2]


def is_archive(path: str) -> bool:
    """Whether the file name has the ending of an archive that can be read."""
    return path.lower().endswith(SUFFIXES)


def is_litter(path: str) -> bool:
    """Whether an operating system added the file, or a folder on its path."""
    return any((part[:1] == "." and part not in (".", "..")) or part.lower() in LITTER for part in path.split("/"))


def missing(path: Path) -> str:
    """Why nothing can be read at a path, as the predicate of a sentence; empty if something exists there."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a null byte is a ValueError
        return "does not exist"
    except OSError as error:
        return f"cannot be reached ({error.strerror})"
    return ""


def too_large(entry: Entry, limits: Limits) -> Reject | None:
    """The reject of a file that has more bytes than the limits allow; None for any other file."""
    if entry.size <= limits.file:
        return None
    return Reject("too large", f"a file of {entry.size} bytes; at most {limits.file} are read.")


def check(archive: Path) -> None:
    """Check that a file is a readable archive.

    Raises:
        SourceError: it is not an archive, or its first header (tar) or its directory (zip) is damaged.
    """
    with _named(archive):
        if archive.suffix.lower() == ".zip":
            zipfile.ZipFile(archive).close()
        else:
            _opened(archive).close()


def entries(location: Path, prefix: str = "", start: int = 0) -> Iterator[Entry]:
    """All files of a folder or archive in their fixed order, without those that operating systems add.

    Args:
        location: a folder or an archive.
        prefix: put before each path, such as `faces.tar/`.
        start: where the first file of an archive is, from `starts`; the files before it are skipped.

    Raises:
        SourceError: the location is an archive that is damaged.
        OSError: the location is a folder that cannot be listed.
    """
    if location.is_dir():
        found = _folder(location, prefix)
    elif location.suffix.lower() == ".zip":
        found = _zip(location, prefix, start)
    else:
        found = _tar(location, prefix, start)
    yield from map(_as_text, found)


def starts(archive: Path) -> Iterator[int]:
    """Where each file of an archive is, for `entries`: the byte of its header in a tar, its number in a zip.

    Raises:
        SourceError: the archive is damaged.
    """
    with _named(archive):
        if archive.suffix.lower() == ".zip":
            with zipfile.ZipFile(archive) as opened:
                yield from (number for number, member in enumerate(opened.infolist()) if _is_zip_file(member))
        else:
            with _opened(archive) as tar:
                yield from (member.offset for member in _members(tar))


def _as_text(entry: Entry) -> Entry:
    """The entry itself, or a rejected one if its path is not valid UTF-8."""
    path = escaped(entry.path)
    if path == entry.path:
        return entry
    reject = entry.reject or Reject("unparsable name", "its path is not UTF-8; rename the file or its folder.")
    return replace(entry, path=path, reject=reject)


def escaped(name: str) -> str:
    """The name with bytes that are not UTF-8, which Python stores as surrogates, as hexadecimal escapes."""
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def printable(path: str) -> str:
    """A path with control characters escaped, safe to print on one line of a terminal."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in path)


class Found(NamedTuple):
    """A file, link or unreadable folder that `walk` has found."""

    path: str
    """Relative to the folder that was walked, with `/`."""
    item: os.DirEntry[str]
    fault: OSError | None = None
    """Why a folder could not be listed."""

    def status(self) -> os.stat_result | None:
        """Size and times, without following a link; None if the file has disappeared since."""
        try:
            return self.item.stat(follow_symlinks=False)
        except OSError:
            return None


def walk(folder: Path) -> Iterator[Found]:
    """Every file and link below a folder, and every folder that cannot be listed; links are not followed.

    Files that operating systems add are left out.

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
    for found in in_order(folder):
        path, item, status = prefix + found.path, Path(found.item.path), found.status()
        if is_archive(path) and status is not None and stat.S_ISREG(status.st_mode):
            yield from inside(item, path)
        else:
            yield _single(path, item, status, found.fault)


def in_order(folder: Path) -> list[Found]:
    """What `walk` finds, in the order of `entries`.

    Raises:
        OSError: the folder itself cannot be listed.
    """
    return sorted(walk(folder), key=lambda found: found.path.split("/"))


def single(path: str, item: Path) -> Entry:
    """The entry of one file that `walk` has found.

    Args:
        path: its path in the source.
        item: the file.
    """
    try:
        status, fault = item.lstat(), None
        if stat.S_ISDIR(status.st_mode):
            os.scandir(item).close()
    except FileNotFoundError:
        status, fault = None, None
    except OSError as error:
        status, fault = None, error
    return _as_text(_single(path, item, status, fault))


def _single(path: str, item: Path, status: os.stat_result | None, fault: OSError | None) -> Entry:
    if fault is not None:
        return _refused(path, Reject("unreadable", f"the folder cannot be listed ({fault.strerror})."))
    if status is None:
        return _refused(path, Reject("unreadable", "it disappeared while the source was read."))
    if stat.S_ISLNK(status.st_mode):
        return _refused(path, Reject("link", "links are not followed; put the file itself there."))
    if not stat.S_ISREG(status.st_mode):
        return _refused(path, Reject("not an image", "it is not a regular file."))
    return Entry(path, status.st_size, item.read_bytes, at_any_time=True)


def inside(archive: Path, path: str, start: int = 0, before: int = 0) -> Iterator[Entry]:
    """The members of an archive in a folder; if it is damaged, the last entry is the archive with the reason.

    Args:
        archive: the file.
        path: its path in the source.
        start: as in `entries`.
        before: number of members before `start`.
    """
    count = before
    try:
        for entry in entries(archive, f"{path}/", start):
            count += 1
            yield replace(entry, read=_alone(entry.read))
    except SourceError as error:
        lost = f"; what follows its first {count} files is lost" if count else "; nothing of it is used"
        yield _refused(path, Reject("unreadable", f"{error.__cause__}{lost}; fetch or pack the archive again."))


def _alone(read: Callable[[], bytes]) -> Callable[[], bytes]:
    """A reader that reports damage of the archive as one unreadable file among the others of the folder."""

    def reading() -> bytes:
        try:
            return read()
        except SourceError as error:
            raise OSError(str(error.__cause__)) from error

    return reading


class _Member(tarfile.TarInfo):
    """A member whose header is refused if it is larger than `_LONGEST_HEADER`."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if not self.isreg() and self.type not in tarfile.REGULAR_TYPES and self.size > _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size} bytes; at most {_LONGEST_HEADER} are read")
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]


def _opened(archive: Path) -> tarfile.TarFile:
    return tarfile.open(archive, "r:*", tarinfo=_Member)


def _tar(archive: Path, prefix: str, start: int) -> Iterator[Entry]:
    with _named(archive), _opened(archive) as tar:
        if start:
            tar.firstmember = None  # type: ignore[attr-defined]  # which was read already
            tar.offset = start
        for member in _members(tar):
            yield _tar_entry(archive, tar, member, prefix)


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members that are no folders and no litter, to the checked end of the archive."""
    while member := tar.next():
        tar.members.clear()  # type: ignore[attr-defined]  # it would keep every header in memory
        if not member.isdir() and not is_litter(member.name.replace("\\", "/")):
            yield member
    _check_end(tar)


def _check_end(tar: tarfile.TarFile) -> None:
    """Refuse an archive that has anything but zeros after its last member.

    `tarfile` takes a damaged header, or a block of zeros, for the end of the archive. Reading to the end of the file
    also verifies the checksum of a compressed archive.
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


def _zip(archive: Path, prefix: str, start: int) -> Iterator[Entry]:
    with _named(archive), zipfile.ZipFile(archive) as opened:
        for member in opened.infolist()[start:]:
            if _is_zip_file(member):
                yield _zip_entry(opened, member, _zip_name(member), prefix)


def _is_zip_file(member: zipfile.ZipInfo) -> bool:
    return not _zip_name(member).endswith("/") and not is_litter(_zip_name(member))


def _zip_name(member: zipfile.ZipInfo) -> str:
    return member.filename.replace("\\", "/")


def _zip_entry(opened: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, prefix: str) -> Entry:
    def read() -> bytes:
        try:
            with opened.open(member) as file:  # limited to the announced size, against decompression bombs
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
    """Turn errors of the archive modules into a SourceError that names the archive."""
    try:
        yield
    except _DAMAGE as error:
        raise SourceError(
            f"source: {escaped(str(archive))} cannot be read as a {' / '.join(SUFFIXES)} archive ({error}); fetch or "
            "pack it again."
        ) from error
