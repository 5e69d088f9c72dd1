"""Where the tracking store lies, who may change it, and how it is moved. Speaks SQLite and HTTP, not MLflow.

A local store is two things side by side: the database `mlflow.db` and the folder `artifacts`. MLflow writes the
absolute address of the artifacts into the database, so a folder that was moved points to where it was; `relocate`
makes it point to where it is.
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
from agepipe.core.errors import ConfigError, TrackingError
from agepipe.core.sqlite import odd, sqlite
from agepipe.registry.tables import PATIENCE, ROOT_TAG, unreadable

SCHEME = "sqlite:///"
SECONDS = 5.0
"""How long a server may be silent when it is first asked."""

ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Every table and column of MLflow's database that holds the address of an artifact folder."""


FOREIGN = (
    "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID",
    "MLFLOW_ACTIVE_MODEL_ID", "MLFLOW_WORKSPACE", "MLFLOW_BACKEND_STORE_URI", "MLFLOW_READ_REPLICA_BACKEND_STORE_URI",
    "MLFLOW_REGISTRY_STORE_URI", "MLFLOW_DEFAULT_ARTIFACT_ROOT", "MLFLOW_ARTIFACTS_DESTINATION",
    "MLFLOW_ARTIFACTS_ONLY", "MLFLOW_SERVE_ARTIFACTS", "MLFLOW_STATIC_PREFIX", "MLFLOW_HOST", "MLFLOW_PORT",
)  # fmt: skip
"""Variables by which MLflow finds the store, experiment, run or server of another program; ours is always named."""

_SILENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",
}


def quiet() -> None:
    """Keep MLflow off the terminal and off the network; what the user has set in the environment stands.

    MLflow reads most of these when it is imported, so this comes first.
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
        f"tracking: {runtime.tracking!r} is not supported; write sqlite:///PATH/mlflow.db, or the http(s) address of "
        "an MLflow server."
    )


def address(runtime: Runtime) -> str:
    """The tracking URI, the same from whatever folder it is asked for."""
    path = database(runtime)
    if path is None:
        return runtime.tracking.rstrip("/")
    # The driver is named because MLflow would take `sqlite:///` off and make folders of a quoted path.
    return sqlite(path, "+pysqlite" if odd(path) else "")


def artifacts(path: Path) -> Path:
    """The artifact folder of the store with this database."""
    return path.parent / "artifacts"


def environ(runtime: Runtime) -> dict[str, str]:
    """The environment of a child process in which MLflow works with this store and no other."""
    inherited = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    return {**inherited, "MLFLOW_TRACKING_URI": address(runtime), "MLFLOW_REGISTRY_URI": address(runtime)}


@contextmanager
def locked(runtime: Runtime, purpose: str) -> Iterator[None]:
    """Take turns with other threads and processes; the lock ends with the process that holds it.

    The lock lies beside a local store. For a server it lies in the workspace, and so binds those who share that.
    """
    path = database(runtime)
    if path is None:
        server = hashlib.sha256(address(runtime).encode()).hexdigest()[:10]
        file = runtime.workspace / f".{purpose}-{server}.lock"
    else:
        file = path.with_name(f".{path.stem}-{purpose}.lock")
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file):
        yield


def check_server(runtime: Runtime) -> None:
    """See whether anything answers at a server's address, without MLflow, which takes seconds to import.

    Raises:
        TrackingError: nothing answers there.
    """
    try:
        urllib.request.urlopen(address(runtime) + "/health", timeout=SECONDS).close()
    except urllib.error.HTTPError:
        return  # `check_answer` says what is wrong with it
    except (OSError, ValueError, HTTPException) as error:
        raise TrackingError(
            f"tracking: no MLflow server answers at {runtime.tracking} ({error}); start it, or use a local store "
            "(--tracking sqlite:///mlruns/mlflow.db)."
        ) from error


def check_answer(runtime: Runtime, status: int, text: str) -> None:
    """Refuse a server whose answer to the question for an experiment is none of MLflow's.

    Raises:
        TrackingError: says what it answered and what to do.
    """
    if status == 200 and _key(text, "experiment"):
        return
    if status == 404 and _key(text, "error_code") == "RESOURCE_DOES_NOT_EXIST":
        return
    if status in (401, 403):
        remedy = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, for it"
    elif status >= 500:
        remedy = "it has a fault of its own; look into its log, or use a local store"
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
    """What to tell the user when this version of MLflow cannot open the store."""
    if "database schema" in str(error):
        return TrackingError(
            f"tracking: {runtime.tracking} was changed by another version of MLflow than {version}, which cannot read "
            "it; install the version that changed it, or name another database (tracking=sqlite:///PATH/mlflow.db)."
        )
    first = str(error).splitlines()[0]
    return TrackingError(f"tracking: {runtime.tracking} cannot be used ({first}); check the path or address.")


def known(path: Path) -> bool:
    """Whether this database is a store that agepipe has made an experiment in.

    Raises:
        TrackingError: the file is no database.
    """
    try:
        with closing(sqlite3.connect(path, timeout=PATIENCE)) as connection:
            return bool(_roots(connection))
    except sqlite3.DatabaseError as error:
        if "no such table" in str(error):
            return False  # MLflow has yet to make it
        raise unreadable(path, error) from error


def check_writable(path: Path, option: str = "tracking") -> None:
    """Refuse a database that is there and cannot be changed now; MLflow would go on trying for minutes.

    Raises:
        TrackingError: it is locked by another process, may not be written, or is no database.
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
    """Make a store that was moved point to its artifacts where they lie now, beside the database.

    Args:
        path: The SQLite database, where it lies now.

    Returns:
        How many addresses were rewritten; 0 when nothing had moved.

    Raises:
        TrackingError: there is no such file, it is not MLflow's, or it never was a store of agepipe.
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
        raise TrackingError(f"{path}: agepipe has never written to it, so it cannot tell where it lay before.")
    return moved


def _roots(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute("SELECT DISTINCT value FROM experiment_tags WHERE key = ?", (ROOT_TAG,))
    return [str(root) for (root,) in found.fetchall()]


def _rewrite(connection: sqlite3.Connection, old: str, new: str) -> int:
    count = 0
    for before, after in ((old, new), (_plain(old), _plain(new))):  # MLflow's own Default experiment has no scheme
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
