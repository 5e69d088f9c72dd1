"""Output files: checked before any work, and written to another folder if writing them fails after the work."""

import os
import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from agepipe.core.artifacts import replacing
from agepipe.core.errors import ConfigError, OutputError
from agepipe.core.system_errors import of_system

PROBE = 64 * 1024
"""Bytes written to test a folder; with a full disk or quota only an empty file can be written."""


def resolve_link(path: Path) -> Path:
    """The target of a symbolic link, so that a file is replaced at its target; another path unchanged."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def check_output(option: str, path: Path, suffixes: Sequence[str]) -> None:
    """Check that an output file can be written.

    Args:
        option: name of the option, for the error.
        path: the file.
        suffixes: the allowed suffixes.

    Raises:
        ConfigError: names the option and the file.
    """
    if not _writable_name(path):
        raise ConfigError(f"{option}: {str(path)!r} is not UTF-8; use other characters.")
    if path.suffix.lower() not in suffixes:
        raise ConfigError(f"{option}: {path} ends in {path.suffix!r}; name a file that ends in {', '.join(suffixes)}.")
    try:
        is_folder, folder = path.is_dir(), resolve_link(path).parent
        exists = folder.is_dir()
        path.exists()  # raises for a name that is too long
    except OSError as error:
        raise _refused(option, error) from error
    if is_folder:
        raise ConfigError(f"{option}: {path} is a folder; name a file in it, such as {path / f'result{path.suffix}'}.")
    if not exists:
        raise ConfigError(f"{option}: there is no folder {folder}; make it, or name another.")
    check_folder(option, folder)


def _writable_name(path: Path) -> bool:
    """Whether the name is UTF-8; Polars cannot write other names."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def check_apart(option: str, path: Path, source: str) -> None:
    """Refuse an output file that is the source, also under another name.

    Raises:
        ConfigError: names the option and the file.
    """
    try:
        same = path.samefile(source)
    except (OSError, ValueError):
        return  # one of them does not exist, or the source is not a file
    if same:
        raise ConfigError(f"{option}: {path} is the source itself, which would be overwritten; name another file.")


def check_folder(option: str, folder: Path) -> None:
    """Refuse a folder that is not writable or cannot be created; nothing is left in it.

    Raises:
        ConfigError: names the option, the folder and the reason.
    """
    try:
        candidates = (folder.absolute(), *folder.absolute().parents)
        existing = next(one for one in candidates if one.exists() or one.is_symlink())  # a broken link is refused
        _write_probe(existing)
    except OSError as error:
        error.filename = str(folder)
        raise _refused(option, error) from error


def _write_probe(folder: Path) -> None:
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


def save(path: Path, write: Callable[[Path], object]) -> Path:
    """Write a file atomically; if that fails, write it to a temporary folder, so that the result is not lost.

    Args:
        path: the file.
        write: writes the file to the path that it is called with.

    Raises:
        OutputError: the file was written to another path, which is named.
    """
    try:
        with replacing(resolve_link(path)) as draft:
            write(draft)
    except OSError as error:
        kept = _save_elsewhere(path.name, write, error)
        raise OutputError(f"{path} could not be written: {of_system(error)} The result is in {kept}.") from error
    return path


def _save_elsewhere(name: str, write: Callable[[Path], object], error: OSError) -> Path:
    for folder in (tempfile.gettempdir, Path.home, Path.cwd):
        try:  # calls `folder` too, because the working folder may be removed, and a user may have no home
            kept = Path(tempfile.mkdtemp(prefix="agepipe-", dir=folder())) / name
            write(kept)
        except (OSError, RuntimeError):
            continue
        return kept
    raise error
