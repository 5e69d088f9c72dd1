"""Who may use the servers that agepipe starts: whoever knows a password, and pages of the server itself.

A server on loopback is open to all users of the machine and to scripts of every page in a browser, and what Prefect
and MLflow are asked to do runs programs. The password of the servers that `agepipe up` keeps lies in the workspace;
the temporary server of a command has one of its own, which ends with it.
"""

import os
import secrets
import stat
from pathlib import Path

from agepipe.config.runtime import Runtime
from agepipe.core.errors import ServiceError

USER = "agepipe"
NOBODY = "http://agepipe.invalid"
"""An origin that no page has: the temporary server shows none. Left empty, Prefect would let in every one."""


def file(runtime: Runtime) -> Path:
    """Where the password of the kept servers lies, as USER:PASSWORD."""
    return runtime.workspace / "password"


def new() -> str:
    """USER:PASSWORD, made up."""
    return f"{USER}:{secrets.token_urlsafe(24)}"


def made(runtime: Runtime) -> str:
    """The password for servers that are about to start: the last one, unless others can read it.

    A browser that has been given it once then need not be asked at the next `agepipe up`.
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
    """The password of the servers that `agepipe up` keeps.

    Raises:
        ServiceError: it cannot be read.
    """
    try:
        return file(runtime).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ServiceError(
            f"{file(runtime)}: the password of the running servers is gone; call `agepipe down`, then `agepipe up`."
        ) from error
    except OSError as error:
        raise ServiceError(
            f"{file(runtime)}: cannot be read ({error.strerror}): the servers on this workspace were started by "
            "another user; work in a workspace of your own (--workspace)."
        ) from error


def private(runtime: Runtime) -> bool:
    """Whether there is a password that nobody but this user and root can read."""
    try:
        found = file(runtime).lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def client(auth: str) -> dict[str, str]:
    """The environment of what asks Prefect's server."""
    return {"PREFECT_API_AUTH_STRING": auth, "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true"}


def server(auth: str, origin: str = NOBODY) -> dict[str, str]:
    """The environment of Prefect's server; `origin` is that of its own page."""
    return {
        "PREFECT_SERVER_API_AUTH_STRING": auth,
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": origin,
    }


def temporary() -> dict[str, str]:
    """The environment of a command with a temporary server, which takes its settings from the command."""
    auth = new()
    return {**client(auth), **server(auth)}
