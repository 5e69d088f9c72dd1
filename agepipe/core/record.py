"""The base of all records: a digest of their content, and paths to their files.

The records are in the `records` module of each package. Two records with the same digest are equal.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict


def digest_of(*parts: object) -> str:
    """SHA-256 over the parts, hex: records by their digest, pydantic models as JSON, all else by `repr`."""
    whole = hashlib.sha256()
    for part in parts:
        text = _plain(part).encode()
        whole.update(len(text).to_bytes(8, "little") + text)
    return whole.hexdigest()


def _plain(part: object) -> str:
    if isinstance(part, Record):
        return part.digest
    if isinstance(part, BaseModel):
        return part.model_dump_json()
    if isinstance(part, (tuple, list)):
        return "[" + ",".join(_plain(item) for item in part) + "]"
    return repr(part)


class Record(BaseModel):
    """Base of all records: a digest, and the files that must exist for the record to be usable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    """SHA-256, hex, of the content; never of paths, times or order."""
    run: str | None = None
    """The MLflow run that made it, if one did."""

    def files(self) -> tuple[Path, ...]:
        """The files and folders without which the record cannot be used."""
        return tuple(value for _, value in self if isinstance(value, Path))

    def intact(self) -> bool:
        """Whether all files and folders of the record exist."""
        nested = [value for _, value in self if isinstance(value, Record)]
        return all(path.exists() for path in self.files()) and all(record.intact() for record in nested)

    def relative_to(self, folder: Path) -> Self:
        """The record as it is stored: paths inside the folder become relative to it, all others stay unchanged."""
        return self._changed(lambda path: path.relative_to(folder) if path.is_relative_to(folder) else path)

    def resolved_in(self, folder: Path) -> Self:
        """The record as it is used: relative paths are resolved in this folder, absolute ones stay unchanged."""
        return self._changed(lambda path: folder / path)

    def moved(self, before: Path, after: Path) -> Self:
        """The record of the same files after a folder was renamed: paths in `before` then lie in `after`."""
        return self._changed(lambda path: after / path.relative_to(before) if path.is_relative_to(before) else path)

    def lies_in(self, folder: Path) -> bool:
        """Whether every path of the record is inside this folder."""
        return all(path.is_relative_to(folder) and ".." not in path.parts for path in self.paths())

    def paths(self) -> Iterator[Path]:
        """All paths of the record and of the records in it."""
        return _paths(self)

    def _changed(self, change: Callable[[Path], Path]) -> Self:
        return self.model_copy(update={name: _with_paths(value, change) for name, value in self})


def _with_paths(value: Any, change: Callable[[Path], Path]) -> Any:
    if isinstance(value, Path):
        return change(value)
    if isinstance(value, Record):
        return value._changed(change)
    return tuple(_with_paths(item, change) for item in value) if isinstance(value, tuple) else value


def _paths(value: Any) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, (Record, tuple)):
        for item in (field for _, field in value) if isinstance(value, Record) else value:
            yield from _paths(item)


class Made(Record):
    """A record with a folder of its own."""

    folder: Path
