"""Read photographs from files, folders and archives; a file that cannot be used gives a reason instead of an error."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from agepipe.core.errors import ImageError, SourceError
from agepipe.data import archives
from agepipe.data.archives import Entry
from agepipe.model.imaging import DEFAULT_LIMITS, Image, photograph

UNREADABLE = "unreadable"
"""Reason for files and folders that cannot be read, and for damaged archives."""


class Picture(NamedTuple):
    """A file: a photograph, or the reason why it cannot be used."""

    path: str
    """The user's path, followed by the path in the folder or archive."""
    image: Image | None
    """Uint8 RGB `(height, width, 3)`, upright; None if the file cannot be used."""
    reason: str = ""
    """Why the file cannot be used, in the words of the catalogue's rejects; else empty."""
    detail: str = ""
    """The reason in a sentence."""
    scale: float = 1.0
    """Pixels of the file for each pixel of `image`, along a side; above 1 if a very large picture was scaled down."""


def check(locations: Sequence[Path]) -> None:
    """Refuse paths that do not exist.

    Raises:
        SourceError: no path is given, or one does not exist.
    """
    if not locations:
        raise SourceError("path: none is given; name a photograph, a folder or an archive.")
    for location in locations:
        if missing := archives.missing(location):
            path = archives.escaped(str(location))
            raise SourceError(f"path: {path} {missing}; name a photograph, a folder or an archive.")


def count(locations: Sequence[Path]) -> int:
    """Number of files; of a damaged archive those that can be listed."""
    return sum(1 for location in locations for _ in _entries(location))


def read(locations: Sequence[Path]) -> Iterator[Picture]:
    """Read and decode all files; hidden files of operating systems are skipped."""
    for location in locations:
        for found in _entries(location):
            yield found if isinstance(found, Picture) else decode(found)


def read_file(path: Path) -> Picture:
    """Read and decode one file.

    Raises:
        SourceError: the path does not exist.
    """
    check([path])
    found = file(path, str(path))
    return found if isinstance(found, Picture) else decode(found)


def file(path: Path, name: str) -> Entry | Picture:
    """A file that the user named, with that name."""
    shown = archives.escaped(name)
    if path.is_file():
        return Entry(shown, path.stat().st_size, path.read_bytes)
    return Picture(shown, None, "not an image", "it is not a regular file.")


def _entries(location: Path) -> Iterator[Entry | Picture]:
    """The files of a path, and at the end the reason if the folder or archive could not be read completely."""
    path = archives.escaped(str(location))
    try:
        if location.is_dir() or (location.is_file() and archives.is_archive(location.name)):
            yield from archives.entries(location, f"{location}/")
        else:
            yield file(location, str(location))
    except (SourceError, OSError) as error:
        yield Picture(path, None, UNREADABLE, str(error))


def decode(entry: Entry) -> Picture:
    """Read and decode the file of an entry."""
    reject = entry.reject or archives.too_large(entry, DEFAULT_LIMITS)
    if reject is not None:
        return Picture(entry.path, None, reject.reason, reject.detail)
    try:
        found = photograph(entry.read())
        return Picture(entry.path, found.image, scale=found.scale)
    except ImageError as error:
        return Picture(entry.path, None, error.reason, error.detail)
    except (OSError, SourceError) as error:
        return Picture(entry.path, None, UNREADABLE, str(error))
