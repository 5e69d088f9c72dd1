"""Photographs that a user names: files, folders and archives, each file read once; one that is bad stops nothing."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from agepipe.core.errors import ImageError, SourceError
from agepipe.data import archives
from agepipe.data.archives import Entry
from agepipe.model.imaging import DEFAULT_LIMITS, Image, photograph

UNREADABLE = "unreadable"
"""Reason of a folder or file that was not given out, and of an archive that is damaged."""


class Picture(NamedTuple):
    """A file that was to be a photograph."""

    path: str
    """The path that the user gave, with the path inside it where that is a folder or an archive."""
    image: Image | None
    """Uint8 RGB `(height, width, 3)`, upright; None where it cannot be used."""
    reason: str = ""
    """Why not: a reject's reason, as in the catalogue."""
    detail: str = ""
    scale: float = 1.0
    """Pixels of the file for each pixel of `image`, along a side: above 1 where a very large one was made smaller."""


def check(locations: Sequence[Path]) -> None:
    """Refuse paths that are not there, before any work.

    Raises:
        SourceError: names the path.
    """
    if not locations:
        raise SourceError("path: none is given; name a photograph, a folder or an archive.")
    for location in locations:
        if missing := archives.missing(location):
            path = archives.escaped(str(location))
            raise SourceError(f"path: {path} {missing}; name a photograph, a folder or an archive.")


def count(locations: Sequence[Path]) -> int:
    """How many files there are; an archive that is damaged counts as far as it can be listed."""
    return sum(1 for location in locations for _ in _entries(location))


def read(locations: Sequence[Path]) -> Iterator[Picture]:
    """Every file, decoded or with the reason why it cannot be; litter of operating systems is left out."""
    for location in locations:
        for found in _entries(location):
            yield found if isinstance(found, Picture) else _decoded(found)


def read_file(path: Path) -> Picture:
    """One photograph's file, decoded or with the reason why it cannot be.

    Raises:
        SourceError: the path does not exist.
    """
    check([path])
    found = _file(path)
    return found if isinstance(found, Picture) else _decoded(found)


def _file(path: Path) -> Entry | Picture:
    shown = archives.escaped(str(path))
    if path.is_file():
        return Entry(shown, path.stat().st_size, path.read_bytes)
    return Picture(shown, None, "not an image", "it is not a regular file.")


def _entries(location: Path) -> Iterator[Entry | Picture]:
    """The files of one path, and last the reason why a folder or archive could not be read to its end."""
    path = archives.escaped(str(location))
    try:
        if location.is_dir() or (location.is_file() and archives.is_archive(location.name)):
            yield from archives.entries(location, f"{location}/")
        else:
            yield _file(location)
    except (SourceError, OSError) as error:
        yield Picture(path, None, UNREADABLE, str(error))


def _decoded(entry: Entry) -> Picture:
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
