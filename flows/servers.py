"""The commands that start and stop servers: up, down."""

import os
from typing import Annotated

import typer

from agepipe.core.errors import ServiceError
from agepipe.core.ports import is_loopback
from flows.options import EXPERIMENT, TRACKING, WORKSPACE, Experiment, Tracking, Workspace
from flows.options import runtime as runtime_of


def up(
    prefect_port: Annotated[int, typer.Option(help="Port of the Prefect server and its UI.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow UI.")] = 5000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 127.0.0.1 is reachable from this machine only.")
    ] = "127.0.0.1",
    workspace: Workspace = WORKSPACE,
    tracking: Tracking = TRACKING,
    experiment: Experiment = EXPERIMENT,
) -> None:
    """Start a Prefect server, a worker and the MLflow UI, and keep them running; commands then start in seconds."""
    from flows import environment, services, show

    runtime = runtime_of(workspace=workspace, tracking=tracking, experiment=experiment)
    if (there := services.running(runtime)).whole:
        if not is_loopback(host) and there.host != host:
            raise ServiceError(f"--host: {host!r}, but the servers run on {there.host}; call `agepipe down` first.")
        typer.echo(f"{there.described()} `agepipe down` stops them.")
        return
    with show.waiting("Starting the servers"):
        kept = services.up(runtime, prefect_port, mlflow_port, host)
    api_url = kept.api_url or ""
    os.environ.pop("PREFECT_API_URL", None)  # the deployments are for the servers started here
    environment.prepare(runtime, api_url)
    from agepipe.registry import tracking as tracked
    from flows import deployments

    try:
        with show.waiting("Deploying the flows"):
            deployments.watch_over_dead_runs()
            deployed = deployments.deploy(runtime, api_url)
    except BaseException:
        services.down(runtime)  # otherwise the next `up` finds servers without flows
        raise
    show.services(kept, deployed, tracked.prepare(runtime, reading=True), runtime)


def down(workspace: Workspace = WORKSPACE) -> None:
    """Stop the servers that `agepipe up` started, and nothing else."""
    from flows import services

    ended = services.down(runtime_of(workspace=workspace))
    typer.echo(f"Stopped: {', '.join(ended)}." if ended else "Nothing was running.")


def add(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(epilog="Example: agepipe up --prefect-port 4300")(up)
    app.command(epilog="Example: agepipe down")(down)
