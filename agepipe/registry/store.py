"""Location, locks and relocation of the tracking store. Uses SQLite and HTTP, not MLflow.

A local store consists of the database `mlflow.db` and the folder `artifacts` beside it. MLflow writes the absolute
address of the artifacts into the database, so a store that was moved still points to its former folder until
`relocate` rewrites the addresses.
"""

import hashlib
import json
import os
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from filelock import FileLock

from agepipe.config.runtime import Runtime
from agepipe.core.bucket_lock import bucket_lock
from agepipe.core.errors import ConfigError, TrackingError, first_line
from agepipe.core.sqlite import odd, sqlite
from agepipe.registry.tables import PATIENCE, ROOT_TAG, unreadable

SCHEME = "sqlite:///"
SECONDS = 5.0
"""Timeout of the first request to a server, s."""

ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns of MLflow's database that contain the address of an artifact folder."""


FOREIGN = (
    "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID",
    "MLFLOW_ACTIVE_MODEL_ID", "MLFLOW_WORKSPACE", "MLFLOW_BACKEND_STORE_URI", "MLFLOW_READ_REPLICA_BACKEND_STORE_URI",
    "MLFLOW_REGISTRY_STORE_URI", "MLFLOW_DEFAULT_ARTIFACT_ROOT", "MLFLOW_ARTIFACTS_DESTINATION",
    "MLFLOW_ARTIFACTS_ONLY", "MLFLOW_SERVE_ARTIFACTS", "MLFLOW_STATIC_PREFIX", "MLFLOW_HOST", "MLFLOW_PORT",
)  # fmt: skip
"""Environment variables that select a store, experiment, run or server of MLflow; agepipe always names its own."""

_SILENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",
}


def quiet() -> None:
    """Turn off MLflow's terminal output and telemetry; variables that the user has set are not changed.

    Call it before MLflow is imported, which then reads most of the variables.
    """
    for name, value in _SILENT.items():
        os.environ.setdefault(name, value)


def database(runtime: Runtime) -> Path | None:
    """The SQLite file of a local store, absolute; None for a server.

    Raises:
        ConfigError: the tracking URI is neither, or names a folder.
    """
    if runtime.tracking.startswith(SCHEME):
        path = Path(runtime.tracking.removeprefix(SCHEME)).expanduser().resolve()
        if path.is_dir():
            raise ConfigError(f"tracking: {path} is a folder; name a file in it, as in {SCHEME}{path}/mlflow.db.")
        return path
    if runtime.tracking.startswith(("http://", "https://")):
        return None
    raise ConfigError(
        f"tracking: {runtime.tracking!r} is not supported; --tracking, AGEPIPE_TRACKING and MLFLOW_TRACKING_URI take "
        "sqlite:///PATH/mlflow.db, or the http(s) address of an MLflow server."
    )


def address(runtime: Runtime) -> str:
    """The tracking URI, independent of the working directory."""
    path = database(runtime)
    if path is None:
        return runtime.tracking.rstrip("/")
    # Without the driver MLflow would strip `sqlite:///` and create folders named by the quoted path.
    return sqlite(path, "+pysqlite" if odd(path) else "")


def artifacts(path: Path) -> Path:
    """The artifact folder of a store, by its database."""
    return path.parent / "artifacts"


def environ(runtime: Runtime) -> dict[str, str]:
    """The environment for a child process in which MLflow uses this store."""
    inherited = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    return {**inherited, "MLFLOW_TRACKING_URI": address(runtime), "MLFLOW_REGISTRY_URI": address(runtime)}


@contextmanager
def locked(runtime: Runtime, purpose: str) -> Iterator[None]:
    """Hold a lock that excludes other threads and processes; it is released if the process dies.

    The lock file is beside a local store. For a server it is in the workspace, and excludes those that share that.
    """
    path = database(runtime)
    if path is None:
        file = runtime.workspace / f".{_of_server(purpose, runtime)}.lock"
    else:
        file = path.with_name(f".{path.stem}-{purpose}.lock")
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file):
        yield


@contextmanager
def locked_in_bucket(runtime: Runtime, purpose: str) -> Iterator[None]:
    """Hold a lock that excludes machines with the same server that share only the bucket of the workspace.

    Nothing is done if the workspace is a folder, or the store is local.

    Raises:
        StorageError: the bucket cannot be used.
    """
    if not runtime.bucket or database(runtime) is not None:
        yield
        return
    with bucket_lock("workspace", runtime.bucket, _of_server(purpose, runtime)):
        yield


def _of_server(purpose: str, runtime: Runtime) -> str:
    """Name of a lock for one server."""
    return f"{purpose}-{hashlib.sha256(address(runtime).encode()).hexdigest()[:10]}"


def check_server(runtime: Runtime) -> None:
    """Check that a server answers, without MLflow, which takes seconds to import.

    Raises:
        TrackingError: nothing answers there.
    """
    try:
        urllib.request.urlopen(address(runtime) + "/health", timeout=SECONDS).close()
    except urllib.error.HTTPError:
        return  # `check_answer` reports the status
    except (OSError, ValueError, HTTPException) as error:
        raise TrackingError(
            f"tracking: no MLflow server answers at {runtime.tracking} ({error}); start it, or use a local store "
            "(--tracking sqlite:///mlruns/mlflow.db)."
        ) from error


def check_answer(runtime: Runtime, status: int, text: str) -> None:
    """Check that the response to a request for an experiment is one of MLflow's.

    Raises:
        TrackingError: names the status and the remedy.
    """
    if status == 200 and _key(text, "experiment"):
        return
    if status == 404 and _key(text, "error_code") == "RESOURCE_DOES_NOT_EXIST":
        return
    if status == 403 and text.startswith("Invalid Host header"):
        name = urlsplit(runtime.tracking).netloc
        remedy = f"start the server with `--allowed-hosts {name}`, or use an address that it allows"
    elif status in (401, 403):
        remedy = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, for it"
    elif status >= 500:
        remedy = "the server failed; read its log, or use a local store"
    else:
        remedy = "it is no MLflow server; check the address"
    raise TrackingError(f"tracking: {runtime.tracking} answers with HTTP status {status}; {remedy}.")


def _key(text: str, key: str) -> Any:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found.get(key) if isinstance(found, dict) else None


def unusable(runtime: Runtime, error: Exception, version: str) -> TrackingError:
    """The error for a store that the installed version of MLflow cannot open."""
    if "database schema" in str(error):
        return TrackingError(
            f"tracking: {runtime.tracking} was changed by another version of MLflow than {version}, which cannot read "
            "it; install the version that changed it, or name another database (tracking=sqlite:///PATH/mlflow.db)."
        )
    return TrackingError(
        f"tracking: {runtime.tracking} cannot be used ({first_line(error)}); check the path or address."
    )


def prepared(path: Path) -> bool:
    """Whether the database contains an experiment that agepipe has created.

    Raises:
        TrackingError: the file is no database.
    """
    try:
        with closing(sqlite3.connect(path, timeout=PATIENCE)) as connection:
            return bool(_roots(connection))
    except sqlite3.DatabaseError as error:
        if "no such table" in str(error):
            return False  # MLflow has not created the tables yet
        raise unreadable(path, error) from error


def check_writable(path: Path, option: str = "tracking") -> None:
    """Check that an existing database can be changed; MLflow would retry for minutes.

    Raises:
        TrackingError: it is locked by another process, is not writable, or is no database.
    """
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(path, timeout=PATIENCE)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    except sqlite3.DatabaseError as error:
        raise unreadable(path, error, option) from error


def relocate(path: Path) -> int:
    """Rewrite the artifact addresses of a store that was moved, to the folder of the database.

    Args:
        path: The SQLite database at its current path.

    Returns:
        The number of rewritten addresses; 0 if the store was not moved.

    Raises:
        TrackingError: there is no such file, it is not a database of MLflow, or agepipe has never used it.
    """
    path = path.expanduser().resolve()
    if not path.is_file():
        raise TrackingError(f"{path}: there is no such file; give the mlflow.db of a store that was moved.")
    here = path.parent.as_uri()
    try:
        with closing(sqlite3.connect(path, timeout=PATIENCE)) as connection, connection:
            roots = _roots(connection)
            moved = sum(_rewrite(connection, root, here) for root in roots if root != here)
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise unreadable(path, error) from error
        raise TrackingError(f"{path}: not a database that MLflow made ({error}); give the mlflow.db.") from error
    except sqlite3.DatabaseError as error:
        raise TrackingError(f"{path}: not a database that MLflow made ({error}); give the mlflow.db.") from error
    if not roots:
        raise TrackingError(
            f"{path}: agepipe has never written to it, so its former folder is not known; name a store of agepipe."
        )
    return moved


def _roots(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute("SELECT DISTINCT value FROM experiment_tags WHERE key = ?", (ROOT_TAG,))
    return [str(root) for (root,) in found.fetchall()]


def _rewrite(connection: sqlite3.Connection, old: str, new: str) -> int:
    count = 0
    # MLflow's own experiment, Default, has addresses without a scheme
    for before, after in ((old, new), (_plain(old), _plain(new))):
        for table, column in ADDRESSES:
            changed = connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (after, len(before) + 1, len(before) + 1, before + "/"),
            )
            count += changed.rowcount
    connection.execute("UPDATE experiment_tags SET value = ? WHERE key = ? AND value = ?", (new, ROOT_TAG, old))
    return count


def _plain(uri: str) -> str:
    return url2pathname(urlsplit(uri).path)
