"""Where results go: refused before any work where they could not be written, and never lost where that fails later."""

import os
import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from agepipe.core.artifacts import replacing
from agepipe.core.errors import ConfigError, OutputError
from agepipe.core.system_errors import of_system

PROBE = 64 * 1024
"""Bytes written to try a folder: a quota or a full disk refuses them, though it lets an empty file be made."""


def followed(path: Path) -> Path:
    """Where a file of this name lies: a link is followed, as by any program that writes to it."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def check_output(option: str, path: Path, suffixes: Sequence[str]) -> None:
    """Refuse a file whose name ends otherwise, or that cannot be written where it shall lie.

    Raises:
        ConfigError: names the option and the file.
    """
    if not _writable_name(path):
        raise ConfigError(f"{option}: {str(path)!r} is not UTF-8; name a file with other letters.")
    if path.suffix.lower() not in suffixes:
        raise ConfigError(f"{option}: {path} ends in {path.suffix!r}; name a file that ends in {', '.join(suffixes)}.")
    try:
        is_folder, folder = path.is_dir(), followed(path).parent
        there = folder.is_dir()
        path.exists()  # a name that is too long fails here
    except OSError as error:
        raise _refused(option, error) from error
    if is_folder:
        raise ConfigError(f"{option}: {path} is a folder; name a file in it, such as {path / f'result{path.suffix}'}.")
    if not there:
        raise ConfigError(f"{option}: there is no folder {folder}; make it, or name another.")
    check_folder(option, folder)


def _writable_name(path: Path) -> bool:
    """Whether every library can write a file of this name; Polars cannot where it is not UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def check_apart(option: str, path: Path, source: str) -> None:
    """Refuse to write over what is read, also by another of its names.

    Raises:
        ConfigError: names the option and the file.
    """
    try:
        same = path.samefile(source)
    except (OSError, ValueError):
        return  # one of them does not exist, or the source is no file
    if same:
        raise ConfigError(f"{option}: {path} is the source itself, which would be lost; name another file.")


def check_folder(option: str, folder: Path) -> None:
    """Refuse a folder in which nothing can be written, or that cannot be made; nothing is left behind.

    Raises:
        ConfigError: names the option, the folder and what is wrong.
    """
    try:
        above = (folder.absolute(), *folder.absolute().parents)
        there = next(one for one in above if one.exists() or one.is_symlink())  # also a link that leads nowhere
        _try(there)
    except OSError as error:
        error.filename = str(folder)
        raise _refused(option, error) from error


def _try(folder: Path) -> None:
    draft = folder / f".probe-{uuid.uuid4().hex[:8]}"
    try:
        with draft.open("wb") as file:
            file.write(bytes(PROBE))
            file.flush()
            os.fsync(file.fileno())
    finally:
        if draft.parent.is_dir():
            draft.unlink(missing_ok=True)


def _refused(option: str, error: OSError) -> ConfigError:
    return ConfigError(f"{option}: {of_system(error)}")


def saved(path: Path, write: Callable[[Path], object]) -> Path:
    """Write a file whole or not at all; where that fails, write it where it can be, for the work in it is done.

    Args:
        path: the file.
        write: writes it under the name that it is given.

    Raises:
        OutputError: it lies elsewhere; says where.
    """
    try:
        with replacing(followed(path)) as draft:
            write(draft)
    except OSError as error:
        kept = _rescued(path.name, write, error)
        raise OutputError(f"{path} could not be written: {of_system(error)} The result is in {kept}.") from error
    return path


def _rescued(name: str, write: Callable[[Path], object], error: OSError) -> Path:
    for place in (tempfile.gettempdir, Path.home, Path.cwd):
        try:  # also around the place: a working folder may have gone, and a user may have no home
            kept = Path(tempfile.mkdtemp(prefix="agepipe-", dir=place())) / name
            write(kept)
        except (OSError, RuntimeError):
            continue
        return kept
    raise error
