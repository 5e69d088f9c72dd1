"""Convert errors of the operating system, Prefect, MLflow and their HTTP clients into sentences for users."""

from agepipe.core.errors import AgepipeError, OutputError, ServiceError, TrackingError, first_line
from agepipe.core.system_errors import full_disk, of_system

HTTP = ("httpx", "httpcore", "requests", "urllib3", "websockets")
STORES = ("mlflow", "sqlalchemy", "sqlite3", "alembic")
LONGEST = 300
"""Maximum length of a library's own message that is shown."""


def understood(error: BaseException) -> AgepipeError | None:
    """The error of a library or of the system as an agepipe error; None for a bug in agepipe."""
    if isinstance(error, AgepipeError):
        return error
    if isinstance(error, ModuleNotFoundError):
        return _missing(error)
    if full := full_disk(error):
        return OutputError(full)
    libraries = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    if libraries & set(HTTP) or "Prefect API" in str(error):
        return ServiceError(
            f"{_asked(error)} failed ({first_line(error)[:LONGEST]}); check that the server runs and can be reached."
        )
    if "prefect" in libraries:
        return ServiceError(f"Prefect: {' '.join(str(error).split())[:LONGEST] or type(error).__name__}")
    if libraries & set(STORES):
        return TrackingError(
            f"tracking: the store failed ({first_line(error)[:LONGEST]}); check it, then give the same command again."
        )
    return of_system(error) if isinstance(error, OSError) else None


def _missing(error: ModuleNotFoundError) -> AgepipeError | None:
    if error.name is None or error.name.partition(".")[0] in ("agepipe", "tasks", "flows"):
        return None
    return AgepipeError(f"this needs {error.name}, which is not installed; install agepipe[train].")


def _asked(error: BaseException) -> str:
    """Describe the request that failed, if the error names it."""
    try:
        return f"A request to {error.request.url}"  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):  # httpx raises the latter if no request is attached
        return "A request to Prefect's server"
