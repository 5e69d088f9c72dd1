"""Results: written under a temporary name and renamed, so that a folder or file is there whole or not at all.

Each folder has a `manifest.json` that says what made it: version, stage, settings, digests of the inputs, counts. It
names no path of the machine.
"""

import fcntl
import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import agepipe
from agepipe.errors import DataError

MANIFEST = "manifest.json"
SHORT = 40
"""Letters of a file's name in that of its draft."""


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `folder` when the block ends, and is removed when it fails.

    Where another process has finished the same result first, that one is kept.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.parent / f".{folder.name}-{uuid.uuid4().hex[:8]}"
    draft.mkdir()
    try:
        yield draft
        _put(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _put(draft: Path, folder: Path) -> None:
    if read_manifest(folder) is None:
        shutil.rmtree(folder, ignore_errors=True)  # what a half-done removal has left
        try:
            draft.rename(folder)
        except OSError:
            if read_manifest(folder) is None:
                raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file to write, with the same ending, which becomes `path` when the block ends.

    When the block fails it is removed, and what was there before stays.
    """
    # shortened, so that any name that the file system takes leaves room for the ending
    draft = path.with_name(f".{path.stem[:SHORT]}-{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Wait until no other process works on this folder; the lock ends with the process that holds it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def write_manifest(
    folder: Path, stage: str, settings: BaseModel, inputs: Mapping[str, str], result: Mapping[str, Any]
) -> None:
    """Say what made the folder and what its record needs to be built again; called last, when all files lie there.

    Args:
        folder: the result folder, usually still under its temporary name.
        stage: name of the stage.
        settings: the settings that decided what came out.
        inputs: digests of the inputs by name.
        result: digests and counts, as JSON values.
    """
    known = {"agepipe": agepipe.__version__, "stage": stage, "settings": settings.model_dump(mode="json")}
    files = sorted(path.name for path in folder.iterdir())
    text = json.dumps({**known, "inputs": dict(inputs), "files": files, "result": dict(result)}, indent=2)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished result folder; None when there is none, or a file of it is gone.

    Raises:
        DataError: the manifest cannot be read.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(
            f"{path}: the manifest is not JSON ({error}); remove the folder to have it made anew."
        ) from error
    if not isinstance(found, dict) or not {"files", "result"} <= found.keys():
        raise DataError(f"{path}: the manifest has no 'files' or 'result'; remove the folder to have it made anew.")
    return found if all((folder / name).exists() for name in found["files"]) else None


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
