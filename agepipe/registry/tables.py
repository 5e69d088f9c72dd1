"""Read the model registry of a local store from its SQLite file, without writing, locking or creating tables.

MLflow itself prepares a database before it reads it, which fails on a read-only disk.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from agepipe.core.errors import TrackingError
from agepipe.registry.versions import DIGEST, Version

PATIENCE = 8.0
"""Maximum wait for a database that another process has locked, s."""
ROOT_TAG = "agepipe.root"
"""Tag of an experiment: the folder of the database, as a URI, when its artifact addresses were last written."""
UNWRITABLE = ("unable to open", "readonly", "read-only", "disk I/O")
"""Messages of SQLite if it must write a file of its own before it can read."""


class Stored(NamedTuple):
    """A run in the store."""

    artifacts: str
    """URI of its artifact folder."""
    tags: dict[str, str]
    experiment: str
    stage: str
    """`active` or `deleted`."""


def versions(path: Path, name: str) -> list[Version]:
    """All versions of a registered model, newest first; empty if there is no such file, table or model.

    Raises:
        TrackingError: the file is no database, is locked, or cannot be read.
    """
    with _opened(path) as database:
        found = _rows(
            database,
            "SELECT version, run_id, source FROM model_versions WHERE name = ? AND current_stage != 'Deleted_Internal' "
            "ORDER BY version DESC",
            name,
        )
        tags: dict[int, dict[str, str]] = {}
        for number, key, value in _rows(
            database, "SELECT version, key, value FROM model_version_tags WHERE name = ?", name
        ):
            tags.setdefault(number, {})[key] = value or ""
        aliases: dict[int, tuple[str, ...]] = {}
        for number, alias in _rows(
            database, "SELECT version, alias FROM registered_model_aliases WHERE name = ? ORDER BY alias", name
        ):
            aliases[number] = (*aliases.get(number, ()), alias)
        roots = _roots(database)
    return [
        Version(
            name=name, number=number, run=run, source=_here(source or "", roots, path), tags=tags.get(number, {}),
            aliases=aliases.get(number, ()),
        )
        for number, run, source in found
    ]  # fmt: skip


def names(path: Path) -> dict[str, bool]:
    """The registered models by name, and whether agepipe has registered a version of each.

    Raises:
        TrackingError: the file is no database, is locked, or cannot be read.
    """
    with _opened(path) as database:
        there = _rows(database, "SELECT name FROM registered_models ORDER BY name")
        ours = {name for (name,) in _rows(database, "SELECT name FROM model_version_tags WHERE key = ?", DIGEST)}
    return {name: name in ours for (name,) in there}


def run(path: Path, run_id: str) -> Stored | None:
    """A run of any experiment, even a deleted one, whose files may still exist; None if there is none.

    Raises:
        TrackingError: the file is no database, is locked, or cannot be read.
    """
    with _opened(path) as database:
        found = _rows(
            database,
            "SELECT runs.artifact_uri, experiments.name, runs.lifecycle_stage FROM runs JOIN experiments "
            "USING (experiment_id) WHERE run_uuid = ?",
            run_id,
        )
        tags = dict(_rows(database, "SELECT key, value FROM tags WHERE run_uuid = ?", run_id))
        roots = _roots(database)
    return Stored(_here(found[0][0], roots, path), tags, *found[0][1:]) if found else None


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection | None]:
    """Open the database read-only; yields None if there is no such file."""
    if not path.is_file():
        yield None
        return
    try:
        with closing(_readable(path)) as database:
            yield database
    except sqlite3.Error as error:
        raise unreadable(path, error) from error


def _readable(path: Path) -> sqlite3.Connection:
    """Open a database read-only, also on a disk that cannot be written."""
    database = _connected(path, "mode=ro")
    try:
        database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        database.close()
        if unfinished(path) or not any(words in str(error) for words in UNWRITABLE):
            raise
        return _connected(path, "immutable=1")
    return database


def _connected(path: Path, how: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, timeout=PATIENCE)


def unfinished(path: Path) -> bool:
    """Whether a killed process has left a journal with changes beside the database."""
    beside = [path.with_name(path.name + end) for end in ("-journal", "-wal")]
    return any(file.is_file() and file.stat().st_size for file in beside)


def unreadable(path: Path, error: sqlite3.Error, option: str = "tracking") -> TrackingError:
    """The error for a database that SQLite cannot use; `option` is the option that names its path."""
    other = (
        "name another database (--tracking sqlite:///PATH/mlflow.db)"
        if option == "tracking"
        else f"name another {option}"
    )
    if "locked" in str(error) or "busy" in str(error):
        return TrackingError(
            f"{option}: {path} is locked by another process (waited {PATIENCE:.0f} s); end that process or wait for "
            "it, then give the same command again."
        )
    if "readonly" in str(error):
        return TrackingError(
            f"{option}: {path} may not be written ({error}); make it and its folder writable, or {other}."
        )
    if isinstance(error, sqlite3.OperationalError):
        left = "; its journal must be written back first" if unfinished(path) else ""
        return TrackingError(
            f"{option}: {path} cannot be opened ({error}{left}); check the path and its permissions, or {other}."
        )
    return TrackingError(f"{option}: {path} is not a database ({error}); move the file away, or {other}.")


def _rows(database: sqlite3.Connection | None, query: str, *values: str) -> list[tuple[Any, ...]]:
    if database is None:
        return []
    try:
        return database.execute(query, values).fetchall()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return []
        raise


def _roots(database: sqlite3.Connection | None) -> list[str]:
    found = _rows(database, "SELECT DISTINCT value FROM experiment_tags WHERE key = ?", ROOT_TAG)
    return [root for (root,) in found]


def _here(address: str, roots: list[str], path: Path) -> str:
    """The URI of an artifact after its store was moved, as `store.relocate` would rewrite it."""
    root = next((root for root in roots if address.startswith(root + "/")), None)
    return address if root is None else path.parent.as_uri() + address.removeprefix(root)
