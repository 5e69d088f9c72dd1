"""Passwords of the servers that agepipe starts.

All users of the machine and the scripts of every page in a browser can reach a server on loopback, and requests to
Prefect and MLflow can run programs. The password of the servers that `agepipe up` starts lies in the workspace; the
temporary server of a command has its own, which is not stored.
"""

import os
import secrets
import stat
from pathlib import Path

from agepipe.config.runtime import Runtime
from agepipe.core.errors import ServiceError

USER = "agepipe"
NOBODY = "http://agepipe.invalid"
"""An origin that no page has, since the temporary server has no UI; Prefect takes an empty value as any origin."""


def file(runtime: Runtime) -> Path:
    """File that holds the password of the running servers, as USER:PASSWORD."""
    return runtime.workspace / "password"


def new() -> str:
    """A random password, as USER:PASSWORD."""
    return f"{USER}:{secrets.token_urlsafe(24)}"


def made(runtime: Runtime) -> str:
    """The password for servers that are about to start: the stored one, unless other users can read it.

    Reusing it means that a browser that has stored it does not ask again after the next `agepipe up`.
    """
    if not private(runtime):
        path = file(runtime)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as opened:
            opened.write(new())
        draft.replace(path)
    return kept(runtime)


def kept(runtime: Runtime) -> str:
    """The password of the servers that `agepipe up` started.

    Raises:
        ServiceError: it cannot be read.
    """
    try:
        return file(runtime).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ServiceError(
            f"{file(runtime)}: the password of the running servers is missing; call `agepipe down`, then `agepipe up`."
        ) from error
    except OSError as error:
        raise ServiceError(
            f"{file(runtime)}: cannot be read ({error.strerror}): the servers on this workspace were started by "
            "another user; work in a workspace of your own (--workspace)."
        ) from error


def private(runtime: Runtime) -> bool:
    """Whether there is a password that only this user and root can read."""
    try:
        found = file(runtime).lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def client(auth: str) -> dict[str, str]:
    """Environment variables of a client of the Prefect server."""
    return {"PREFECT_API_AUTH_STRING": auth, "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true"}


def server(auth: str, origin: str = NOBODY) -> dict[str, str]:
    """Environment variables of the Prefect server; `origin` is that of its own UI."""
    return {
        "PREFECT_SERVER_API_AUTH_STRING": auth,
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": origin,
    }


def temporary() -> dict[str, str]:
    """Environment variables of a command with a temporary server, for both sides."""
    auth = new()
    return {**client(auth), **server(auth)}
