"""Preparation before the command line starts a flow: check outputs and servers, set the environment."""

import os
import sys
from urllib.parse import urlsplit

from agepipe.config.runtime import EXPERIMENT, TRACKING, Runtime, absolute
from agepipe.registry import store
from agepipe.serving.outputs import check_folder
from flows import environment, reach, services, shell
from flows.profile import profile
from flows.temporary import TemporaryServer


def check_writable(runtime: Runtime) -> None:
    """Check that the workspace and a local store can be written, before any work is done.

    Raises:
        ConfigError: names the option and the folder.
        TrackingError: the database of the store is locked or cannot be written.
    """
    check_folder("--workspace", runtime.workspace)
    if (path := store.database(runtime)) is not None:
        check_folder("--tracking", path.parent)
        store.check_writable(path)


def enter(runtime: Runtime, *, tracked: bool = True) -> TemporaryServer | None:
    """Prepare the environment for Prefect; must come before the first import of a flow.

    Args:
        runtime: the workspace and the store.
        tracked: whether the flow writes to the store.

    Returns:
        The temporary server, whose `wait` must be called before the first flow; None if the command uses a running
        server.

    Raises:
        AgepipeError: the workspace, its bucket or the store cannot be written, or the Prefect server does not answer.
    """
    runtime.mirror.check()
    if tracked:
        check_writable(runtime)
    else:
        check_folder("--workspace", runtime.workspace)
    kept = services.running(runtime).api_url
    if kept:
        shell.bypass_proxies(urlsplit(kept).hostname)
    why = _choose_server(kept)
    api_url = os.environ.get("PREFECT_API_URL") or kept
    used = _used(runtime, api_url, why)
    if api_url:
        reach.check_alive(api_url)
    else:
        store.check_writable(environment.prefect_home(runtime) / "prefect.db", "--workspace")
    environment.change(runtime, kept)
    home, server = environment.prefect_home(runtime), None
    if not api_url:
        server = TemporaryServer(home)
        os.environ.update({"PREFECT_API_URL": server.api_url, "PREFECT_UI_URL": ""})  # it has no page to link to
    environment.ignore_files(home)
    if api_url:
        reach.check()
    if used:
        print(f"Uses {', '.join(used)}.", file=sys.stderr)
    return server


def _choose_server(kept: str | None) -> str:
    """Why the command uses the Prefect server that it uses; that of the user's profile is set in the environment.

    Args:
        kept: address of the server that `agepipe up` started for this workspace.
    """
    if os.environ.get("PREFECT_API_URL"):
        return "PREFECT_API_URL"
    if kept:
        return "agepipe up"
    name, values = profile()
    if "PREFECT_API_URL" in values:
        for variable, value in values.items():
            os.environ.setdefault(variable, value)
    return f"profile {name}"


def _used(runtime: Runtime, api_url: str | None, why: str) -> list[str]:
    """Servers that the command uses without being told so on the command line, each with the reason."""
    used = [f"the Prefect server {api_url} ({why})"] if api_url else []
    for what, variables, value in (
        ("tracking store", TRACKING, runtime.tracking),
        ("experiment", EXPERIMENT, runtime.experiment),
    ):
        name = next(filter(os.environ.get, variables), "")
        if name and absolute(os.environ[name]) == value:
            used.append(f"the {what} {value} ({name})")
    return used
