"""Results are written atomically: a file or folder is filled under a temporary name and then renamed.

Each folder has a `manifest.json` with version, stage, settings, digests of the inputs, and counts, but no path of the
machine. A draft is locked while a process fills it, so that `sweep` can distinguish it from drafts of killed processes.
"""

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, lock_descriptor
from pydantic import BaseModel

import agepipe
from agepipe.core.errors import DataError

MANIFEST = "manifest.json"
SHORT = 40
"""Maximum length of the part of a draft's name that is taken from the result's, because names of files are limited."""
DRAFT = re.compile(r"\..+-[0-9a-f]{8}(?!\.lock$)(\.\w+)?")
"""Names of drafts: a dot, the name of the result, eight random hex digits, and the ending of a file."""
LOCKED = os.name != "nt"
"""Whether drafts are locked. Windows cannot lock a folder, nor write to or rename a file that is open and locked."""


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `folder` when the block ends, and is removed when it fails.

    If another process has finished the same result first, that result is kept.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _draft(folder.parent, folder.name, "", Path.mkdir) as draft:
        try:
            yield draft
            _put(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _put(draft: Path, folder: Path) -> None:
    if read_manifest(folder) is None:
        shutil.rmtree(folder, ignore_errors=True)  # left by an interrupted removal
        try:
            draft.rename(folder)
        except OSError:
            if read_manifest(folder) is None:
                raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file to write, with the same ending, which becomes `path` when the block ends.

    When the block fails, the temporary file is removed and `path` stays unchanged.
    """
    with _draft(path.parent, path.stem[:SHORT], path.suffix, Path.touch) as draft:
        try:
            yield draft
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


@contextmanager
def _draft(folder: Path, stem: str, suffix: str, make: Callable[[Path], None]) -> Iterator[Path]:
    """A new draft, locked until the block ends or the process does."""
    handle = None
    while handle is None:
        draft = folder / f".{stem}-{uuid.uuid4().hex[:8]}{suffix}"
        make(draft)
        handle = _lock(draft)
    try:
        yield draft
    finally:
        os.close(handle)


def _lock(draft: Path) -> int | None:
    """The descriptor that holds the lock of a draft; None if another process holds it or has removed the draft."""
    if not LOCKED:
        return os.open(os.devnull, os.O_RDONLY)
    try:
        handle = os.open(draft, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        locked = lock_descriptor(handle, blocking=False)
    except OSError:
        return handle  # a file system without locks, where `sweep` cannot take one either
    if locked and draft.exists():
        return handle
    os.close(handle)
    return None


def sweep(workspace: Path) -> list[Path]:
    """Remove the drafts of killed processes from a workspace; drafts that are being filled stay.

    Returns:
        The removed paths; none on Windows, where nothing distinguishes one kind from the other.
    """
    if not LOCKED:
        return []
    folders = _folders(workspace)
    parts = [folder for place in folders if place.name == "predictions" for folder in _folders(place)]
    found = [path for folder in (workspace, *folders, *parts) for path in folder.glob(".*-*")]
    return [path for path in found if DRAFT.fullmatch(path.name) and _swept(path)]


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, without links, which may lead into another workspace."""
    return [path for path in folder.glob("*") if path.is_dir() and not path.is_symlink()]


def _swept(draft: Path) -> bool:
    if draft.is_symlink():
        return False
    try:
        handle = os.open(draft, os.O_RDONLY)
    except OSError:
        return False  # another process has just finished or removed it, or this user may not read it
    try:
        if not lock_descriptor(handle, blocking=False):
            return False  # it is being filled
        _discard(draft)
    except OSError:
        return False  # it cannot be locked or removed
    finally:
        os.close(handle)
    return True


def _discard(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def remove(path: Path, workspace: Path) -> None:
    """Remove a result, a folder or a file, from its workspace; nothing is done if it does not exist.

    Raises:
        DataError: it is outside the workspace, directly or through a link, or it cannot be removed.
    """
    if not path.exists() and not path.is_symlink():
        return
    inside = path.resolve().is_relative_to(workspace.resolve()) and path.resolve() != workspace.resolve()
    if path.is_symlink() or not inside:
        raise DataError(
            f"{path}: it is in {path.resolve()}, outside the workspace {workspace}; results are removed from the "
            "workspace only, so remove it by hand to have it computed again."
        )
    draft = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}{path.suffix if path.is_file() else ''}")
    try:
        path.rename(draft)  # so that a kill leaves no incomplete result under its own name
    except OSError as error:
        raise DataError(
            f"{path}: it cannot be removed ({error.strerror}); make the folder {path.parent} writable."
        ) from error
    with suppress(OSError):  # `sweep` removes the rest later
        _discard(draft)


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Wait until no other process or thread works on this folder; the lock ends with the process that holds it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f".{folder.name}.lock")
    with FileLock(path):  # when it gets a file that its last holder has removed, it locks a new one
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `folder` when the block ends, and stays to be completed later when it fails.

    The files in `partial` of it are preserved with it, and removed once the block has ended. Only one process or thread
    may fill it at a time; see `turn`.
    """
    draft = progress_of(folder) / "result"
    draft.mkdir(parents=True, exist_ok=True)
    yield draft
    draft.rename(folder)
    shutil.rmtree(progress_of(folder), ignore_errors=True)


def progress_of(folder: Path) -> Path:
    """The folder in which an unfinished result is stored."""
    return folder.with_name(f".{folder.name}-progress")


def partial(folder: Path) -> Path:
    """The folder for the checkpoints of a function that fills `folder`; it is removed when the result is finished."""
    return folder.with_name(f"{folder.name}-partial")


def write_manifest(
    folder: Path, stage: str, settings: BaseModel | Mapping[str, Any], inputs: Mapping[str, Any],
    result: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write the manifest: what made the folder, and what its record is built from. Called last, after all files.

    Args:
        folder: the result folder, usually still under its temporary name.
        stage: name of the stage.
        settings: the settings that decided the result; a mapping holds JSON values.
        inputs: digests of the inputs by name.
        result: digests and counts, as JSON values.
    """
    plain = settings.model_dump(mode="json") if isinstance(settings, BaseModel) else dict(settings)
    known = {"agepipe": agepipe.__version__, "stage": stage, "settings": plain}
    files = sorted(path.name for path in folder.iterdir())
    text = json.dumps({**known, "inputs": dict(inputs), "files": files, "result": dict(result)}, indent=2)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished result folder; None if there is none, or if a file that it lists is missing.

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
            f"{path}: the manifest is not JSON ({error}); remove the folder, and run the stage again."
        ) from error
    if not isinstance(found, dict) or not {"files", "result"} <= found.keys():
        raise DataError(f"{path}: the manifest has no 'files' or 'result'; remove the folder, and run the stage again.")
    return found if all((folder / name).exists() for name in found["files"]) else None


def reserve(descriptor: int, size: int) -> None:
    """Allocate the space of a file that will be written through a memory map, which cannot report a full disk.

    Raises:
        OSError: the disk has not that much space.
    """
    if size and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
