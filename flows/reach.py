"""Check once, before a flow starts, that the Prefect server answers."""

import urllib.error
import urllib.request
from http.client import HTTPException

from agepipe.core.errors import ServiceError, first_line

SECONDS = 5.0
"""Timeout of a request."""
REMEDY = (
    "start it; to use a temporary one, unset PREFECT_API_URL, run `agepipe down` if `up` started it, or choose a "
    "profile without it (`prefect profile use ephemeral`)"
)


def check_alive(url: str) -> None:
    """Check that something answers at an address, without importing Prefect, which takes seconds.

    Raises:
        ServiceError: nothing answers there.
    """
    try:
        urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=SECONDS).close()
    except urllib.error.HTTPError:
        return  # `check` says what is wrong with it
    except (OSError, ValueError, HTTPException) as error:
        raise ServiceError(f"PREFECT_API_URL: {url} does not answer ({error}); {REMEDY}.") from error


def check() -> None:
    """Check that a flow can report to the server that PREFECT_API_URL names.

    Raises:
        ServiceError: nothing answers there, it requires a password, or it is no Prefect server of this version.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    url = PREFECT_API_URL.value()
    try:
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(httpx_settings={"timeout": SECONDS}, sync_client=True) as client,
        ):
            client.raise_for_api_version_mismatch()
    except Exception as error:  # httpx, pydantic and Prefect each raise their own, and plain RuntimeError
        raise ServiceError(f"PREFECT_API_URL: {url} {_fault(error.__cause__ or error)}") from error


def _fault(error: BaseException) -> str:
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        if status in (401, 403):
            return f"requires a password (HTTP status {status}); set PREFECT_API_AUTH_STRING or PREFECT_API_KEY for it."
        return f"answers with HTTP status {status}; check the address, which ends in /api, or {REMEDY}."
    if isinstance(error, httpx.HTTPError | httpx.InvalidURL | OSError):
        return f"does not answer ({error}); {REMEDY}."
    if "incompatible" in str(error):
        return f"is a server of another version ({error}); install one of the same, or {REMEDY}."
    return f"does not answer as Prefect's server does ({first_line(error)[:200]}); check the address."
