"""Buckets and files that are named by a URI, through fsspec.

Each store takes its address and credentials from its own environment variables and files, such as AWS_PROFILE,
AWS_ENDPOINT_URL or GOOGLE_APPLICATION_CREDENTIALS, so agepipe has no settings for them.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agepipe.core.errors import AgepipeError, ConfigError, StorageError, first_line
from agepipe.core.system_errors import full_disk

if TYPE_CHECKING:  # takes a third of a second to import, which a local workspace need not spend
    from fsspec import AbstractFileSystem

PACKAGES = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "az": ("adlfs", "azure"), "file": ("fsspec", "train")}
"""The package that each kind of URI needs, and the extra that installs it."""
SKEWED = "RequestTimeTooSkewed"
"""Code of S3's error for a request whose time differs from the server's by more than 15 minutes."""


def is_uri(text: str) -> bool:
    """Whether a text is a URI; all others are paths."""
    return "://" in text


def check_uri(field: str, uri: str) -> None:
    """Check a URI without asking the store.

    Raises:
        ConfigError: its scheme is unknown, its bucket or path is missing, or the package that reads it is.
    """
    parts = urlsplit(uri)
    if parts.scheme not in PACKAGES:
        known = ", ".join(f"{scheme}://" for scheme in PACKAGES)
        raise ConfigError(f"{field}: '{uri}' begins with {parts.scheme}://; allowed are {known} and paths.")
    if (parts.scheme == "file") == bool(parts.netloc) or (parts.scheme == "file" and parts.path == "/"):
        form = "file:///FOLDER" if parts.scheme == "file" else f"{parts.scheme}://BUCKET/FOLDER"
        raise ConfigError(f"{field}: '{uri}' is not of the form {form}.")
    package, extra = PACKAGES[parts.scheme]
    if find_spec(package) is None:
        raise ConfigError(
            f"{field}: '{uri}' needs {package}, which is not installed; install agepipe[{extra}] (uv run --extra "
            f"{extra}), or name a path."
        )


def opened(field: str, uri: str) -> "tuple[AbstractFileSystem, str]":
    """The file system of a URI, and the path in it; listings are never cached, because other machines write too.

    Raises:
        ConfigError: as `check_uri`.
        StorageError: the store's own configuration cannot be used.
    """
    check_uri(field, uri)
    import fsspec

    with asking(field, uri):
        fs, path = fsspec.url_to_fs(uri, use_listings_cache=False)
    return fs, path.rstrip("/")


def is_local(fs: "AbstractFileSystem") -> bool:
    """Whether the files are those of this machine."""
    return "file" in fs.protocol


def create(fs: "AbstractFileSystem", path: str, content: bytes) -> bool:
    """Write an object, whole or not at all, if there is none; of several machines that do so at once, one succeeds.

    Returns:
        Whether it was written; False if there is one already.
    """
    try:
        if is_local(fs):
            _link(Path(path), content)
        else:
            fs.pipe_file(path, content, mode="create")
    except OSError:  # the stores name this error differently, so ask what is there
        if not fs.exists(path):
            raise
        return False
    return True


def _link(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        draft.write_bytes(content)
        os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def asking(field: str, uri: str, *, missing_ok: bool = False) -> Iterator[None]:
    """Turn the errors of a store into one sentence; those of the disk of this machine stay as they are.

    Args:
        field: setting that holds the URI.
        uri: what is asked for.
        missing_ok: whether FileNotFoundError is raised unchanged.

    Raises:
        StorageError: the store refuses, does not answer, or has no such bucket or file.
    """
    try:
        yield
    except AgepipeError:
        raise
    except Exception as error:  # botocore, aiohttp, google and azure each raise their own
        if full_disk(error) or (missing_ok and isinstance(error, FileNotFoundError)):
            raise
        raise StorageError(f"{field}: '{uri}' {_fault(error)}, then give the same command again.") from error


def _fault(error: Exception) -> str:
    """What is wrong, and what to do."""
    said = first_line(error)[:200].rstrip(".")
    if isinstance(error, FileNotFoundError):
        return f"does not exist ({said}); check the name, or create the bucket"
    if SKEWED in f"{error} {error.__cause__}":
        return f"refuses requests with the time of this machine ({said}); set its clock by a time server"
    if isinstance(error, PermissionError) or "credential" in f"{type(error).__name__} {said}".lower():
        return f"may not be used with these credentials ({said}); set those of a user who may read and write it"
    return f"does not answer as it should ({said}); check the address and the network"
