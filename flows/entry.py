"""Preparation before the command line starts a flow: check outputs and servers, set the environment."""

import os

from agepipe.config.runtime import Runtime
from agepipe.registry import store
from agepipe.serving.outputs import check_folder
from flows import environment, reach, services
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
    api_url = os.environ.get("PREFECT_API_URL") or kept
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
    return server
