"""The files that a user names for results, refused before any work where they could not be written."""

from collections.abc import Sequence
from pathlib import Path

from agepipe.errors import ConfigError


def check_output(option: str, path: Path, suffixes: Sequence[str]) -> None:
    """Refuse a file whose name ends otherwise, or whose folder is not there.

    Raises:
        ConfigError: names the option and the file.
    """
    if path.suffix.lower() not in suffixes:
        raise ConfigError(f"{option}: {path} ends in {path.suffix!r}; name a file that ends in {', '.join(suffixes)}.")
    if not path.parent.is_dir():
        raise ConfigError(f"{option}: there is no folder {path.parent}; make it, or name another.")
