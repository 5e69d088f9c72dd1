"""Check the workers of a running Dask scheduler before the first trial, so that what they lack is one sentence."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

from agepipe.config.runtime import Runtime
from agepipe.core.errors import ServiceError, WorkerError, first_line
from agepipe.core.provenance import version
from agepipe.registry import store
from flows import reach

SECONDS = 10
"""Timeout of the connection to the scheduler."""


class Needs(NamedTuple):
    """What a trial needs on a worker."""

    version: str
    """Of agepipe."""
    host: str
    """Name of the machine that searches."""
    prefect: str
    """Address of Prefect's API."""
    tracking: str
    """Address of the tracking store."""
    token: Path
    """A file in the workspace."""


def check(runtime: Runtime, api_url: str) -> None:
    """Ask every worker of `runtime.scheduler` whether it has what a trial needs.

    Args:
        runtime: scheduler, workspace and tracking store.
        api_url: address of Prefect's API.

    Raises:
        WorkerError: the scheduler does not answer or has no worker, or a worker lacks something; names the worker.
    """
    with _client(runtime.scheduler) as client, NamedTemporaryFile(dir=_folder(runtime), prefix=".cluster-") as token:
        needs = Needs(
            version("agepipe"), socket.gethostname(), api_url, store.address(runtime), Path(token.name)
        )  # fmt: skip
        answers: dict[str, Any] = client.run(lacking, needs, on_error="return")
    if not answers:
        raise WorkerError(f"scheduler: {runtime.scheduler} has no worker; start one with `dask worker`.")
    for worker, answer in answers.items():
        if isinstance(answer, ImportError):
            answer = f"cannot import agepipe's flows ({first_line(answer)}); install the same version there."
        elif isinstance(answer, Exception):
            answer = f"failed its check ({first_line(answer)}); see its log."
        if answer:
            raise WorkerError(f"scheduler: the worker {worker} {answer}")


def lacking(needs: Needs) -> str:
    """What this machine lacks, as the end of a sentence; empty if it lacks nothing. Runs on the worker."""
    here, elsewhere = version("agepipe"), socket.gethostname() != needs.host
    if here != needs.version:
        return f"has agepipe {here}, not {needs.version}; install the same version there."
    if not _reaches(needs.prefect):
        return (
            f"does not reach Prefect at {needs.prefect}; set PREFECT_API_URL to an address that it reaches, as of "
            "`agepipe up --host`."
        )
    if needs.tracking.startswith("http"):
        if not _reaches(needs.tracking):
            return f"does not reach the tracking server {needs.tracking}; give an address that it reaches."
    elif elsewhere:
        return f"is on another machine, which cannot use the store {needs.tracking}; give --tracking http://HOST:PORT."
    if not needs.token.is_file():
        return f"does not see the workspace {needs.token.parent}; give a folder that all workers share."
    return ""


@contextmanager
def _client(address: str) -> Iterator[Any]:
    from distributed import Client

    try:
        client = Client(address, timeout=SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise WorkerError(
            f"scheduler: {address} does not answer ({first_line(error)}); start it with `dask scheduler`."
        ) from error
    with client:
        yield client


def _folder(runtime: Runtime) -> Path:
    runtime.workspace.mkdir(parents=True, exist_ok=True)
    return runtime.workspace


def _reaches(url: str) -> bool:
    try:
        reach.check_alive(url)
    except ServiceError:
        return False
    return True
