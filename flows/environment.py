"""What Prefect and MLflow must find in the environment before they are imported.

A value that the user has set stays as it is. Everything lies in the workspace, so that agepipe neither reads nor
changes a Prefect installation that the user has for other things.
"""

import os
from collections.abc import Mapping

from agepipe.where import Where
from flows import access

QUIET_CONSOLE = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
"""In the user's terminal the command line speaks; Prefect's lines go to its server."""


def settings(where: Where) -> dict[str, str]:
    """The variables for a flow that runs on this workspace."""
    return {
        "PREFECT_HOME": str(where.workspace / "prefect"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "agepipe",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def prepare(where: Where, api_url: str | None) -> None:
    """Set what the user has not set; `api_url` is the address of a Prefect server that `agepipe up` keeps.

    Raises:
        ServiceError: the password of that server cannot be read.
    """
    # Prefect makes its home but not the folders above it, and would then wait for a server that cannot start.
    (where.workspace / "prefect").mkdir(parents=True, exist_ok=True)
    if not os.environ.get("PREFECT_API_URL"):  # a password that the user has set is for a server that is not used here
        os.environ.update(access.client(access.kept(where)) if api_url else access.temporary())
    extra: Mapping[str, str] = {"PREFECT_API_URL": api_url} if api_url else {}
    for name, value in {**settings(where), **QUIET_CONSOLE, **extra}.items():
        os.environ.setdefault(name, value)
