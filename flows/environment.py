"""Environment variables of Prefect and MLflow, which must be set before they are imported.

Everything lies in the workspace, so that agepipe neither reads nor changes a Prefect installation that the user has for
other things. Of its variables those stay that lead to a server (PREFECT_API_URL and what a client of it needs) or
concern the log; files such as prefect.toml in the working folder are not read.
"""

import os
from contextlib import chdir
from pathlib import Path
from urllib.parse import urlsplit

from agepipe.config.runtime import Runtime
from agepipe.core.errors import ConfigError
from agepipe.core.sqlite import sqlite
from agepipe.registry import store
from flows import access, shell

QUIET_CONSOLE = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
"""In the user's terminal the command line speaks; Prefect's lines go to its server."""
LASTING = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30", "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500"}
"""For a server that outlives the command. It may have to notice the command's death, for which each flow ends up to a
second later; and while its database restarts it answers with status 500, after which a request is repeated."""
LONGEST = 480
"""Maximum length of the path of an SQLite file, bytes; its journal adds an ending."""
USERS = (
    "PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "PREFECT_API_TLS_", "PREFECT_API_SSL_",
    "PREFECT_API_REQUEST_TIMEOUT", "PREFECT_API_ENABLE_HTTP2", "PREFECT_CLIENT_", "PREFECT_LOGGING_",
    "PREFECT_SERVER_EPHEMERAL_", "PREFECT_FLOWS_HEARTBEAT_", "PREFECT__", "PREFECT_DEBUG_MODE",
)  # fmt: skip
"""Variables of Prefect, or how they begin, that a user may set for agepipe's flows too; all others are left out."""
UVICORN = ("UVICORN_", "WEB_CONCURRENCY")
"""What a user sets for a web server of their own; ours is uvicorn too, and some of it keeps ours from starting."""


def settings(runtime: Runtime) -> dict[str, str]:
    """The variables for a flow that runs on this workspace."""
    return {**own(runtime), **defaults(), **LASTING}


def own(runtime: Runtime) -> dict[str, str]:
    """Where Prefect keeps what it knows of this workspace; nobody else may say."""
    home = prefect_home(runtime)
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": sqlite(home / "prefect.db", "+aiosqlite"),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }


def defaults() -> dict[str, str]:
    """Defaults of Prefect and MLflow that the user can override."""
    return {
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "agepipe",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",  # photographs are read while the server starts
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def prefect_home(runtime: Runtime) -> Path:
    """Folder in the workspace for the files of Prefect."""
    return runtime.workspace / "prefect"


def inherited() -> dict[str, str]:
    """The environment of this process without variables of another program's Prefect, MLflow or uvicorn."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in store.FOREIGN
        and not name.startswith(UVICORN)
        and (not name.startswith("PREFECT_") or (name.startswith(USERS) and value))
    }


def prepare(runtime: Runtime, api_url: str | None) -> None:
    """As `change`; then import Prefect without reading other programs' settings."""
    change(runtime, api_url)
    ignore_files(prefect_home(runtime))


def change(runtime: Runtime, api_url: str | None) -> None:
    """Set the environment of Prefect and MLflow, without importing them.

    Args:
        runtime: the workspace.
        api_url: address of the Prefect server that `agepipe up` started; the user's PREFECT_API_URL takes precedence.

    Raises:
        ConfigError: the path of the workspace or of the store is too long for a database.
        ServiceError: the password of the kept server cannot be read.
    """
    home, database = prefect_home(runtime), store.database(runtime)
    for option, path in (("--workspace", home / "prefect.db"), ("--tracking", database)):
        if path is not None:
            check_length(option, path)
    # Prefect does not create the parents of its home, and would then wait for a server that cannot start.
    home.mkdir(parents=True, exist_ok=True)
    kept = inherited()
    for name in os.environ.keys() - kept.keys():
        del os.environ[name]
    named = os.environ.get("PREFECT_API_URL")
    if not named or _same_server(named, api_url):  # otherwise the user's own password applies
        os.environ.update(access.client(access.kept(runtime)) if api_url else access.temporary())
    extra = {"PREFECT_API_URL": api_url} if api_url else {}
    kept_alive = LASTING if named or api_url else {}
    for name, value in {**defaults(), **QUIET_CONSOLE, **kept_alive, **extra}.items():
        os.environ.setdefault(name, value)
    os.environ.update(own(runtime))
    shell.bypass_proxies()
    shell.drop_proxies()


def _same_server(named: str, kept: str | None) -> bool:
    """Whether an address is that of the running server, by any host name of this machine."""
    if not kept:
        return False
    found = urlsplit(named)
    ours = urlsplit(kept)
    names = shell.LOOPBACK if ours.hostname in shell.LOOPBACK else (ours.hostname,)
    return found.hostname in names and found.port == ours.port


def check_length(option: str, path: Path) -> None:
    """Refuse a database path that is too long for SQLite.

    Raises:
        ConfigError: names the option.
    """
    length = len(os.fsencode(path))
    if length > LONGEST:
        raise ConfigError(
            f"{option}: the path {str(path)[:60]}… has {length} bytes, and SQLite opens none above {LONGEST}; name a "
            "shorter folder."
        )


def ignore_files(empty: Path) -> None:
    """Keep Prefect from reading prefect.toml, pyproject.toml and .env of the working folder, now and later.

    Args:
        empty: a folder without such files.
    """
    with chdir(empty):
        from prefect.settings import sources
    # Prefect has no option for this, and reads the files again whenever a setting is overridden temporarily.
    sources.TomlConfigSettingsSourceBase._read_file = lambda _, __: {}  # type: ignore[method-assign, assignment]
    sources.FilteredDotEnvSettingsSource._read_env_files = lambda _: {}  # type: ignore[method-assign, assignment]
