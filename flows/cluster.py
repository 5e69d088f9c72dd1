"""Check the workers of a running Dask scheduler before the first trial, so that what they lack is one sentence."""

import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

from agepipe.config.runtime import Runtime, cache_of
from agepipe.config.stages import LearnSettings, SearchSettings
from agepipe.config.torchvision_models import is_file
from agepipe.core.errors import AgepipeError, ConfigError, ServiceError, WorkerError, first_line
from agepipe.core.mirror import Mirror
from agepipe.core.provenance import version
from agepipe.registry import store
from agepipe.serving.outputs import check_folder
from flows import reach

SECONDS = 10
"""Timeout of the connection to the scheduler."""
CLOCKS = 60.0
"""Largest difference of two clocks, s. The newest evaluation is found by its time, and S3 refuses 15 minutes."""


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
    bucket: str
    """URI of the workspace; empty if it is a folder that all machines share."""
    token: str
    """A file in the workspace: its path, or its name in the bucket."""


def check_weights(learn: LearnSettings, search: SearchSettings, runtime: Runtime) -> None:
    """Refuse initial weights in a file of this machine if the workers share only a bucket with it.

    Raises:
        ConfigError: names the file.
    """
    if not (runtime.scheduler and runtime.bucket):
        return
    for weights in {**search.grid, **search.space}.get("weights", (learn.weights,)):
        if is_file(str(weights)):
            raise ConfigError(
                f"learn.weights: '{weights}' is a file of this machine, and the workers of {runtime.scheduler} share "
                f"only {runtime.bucket} with it; take 'pretrained' or random weights, or a workspace folder that all "
                "machines share."
            )


def check(runtime: Runtime, api_url: str) -> None:
    """Ask every worker of `runtime.scheduler` whether it has what a trial needs.

    Args:
        runtime: scheduler, workspace and tracking store.
        api_url: address of Prefect's API.

    Raises:
        WorkerError: the scheduler does not answer or has no worker, or a worker lacks something; names the worker.
    """
    with _client(runtime.scheduler) as client, _token(runtime) as token:
        needs = Needs(
            version("agepipe"), socket.gethostname(), api_url, store.address(runtime), runtime.bucket, token
        )  # fmt: skip
        sent = time.time()
        clocks: dict[str, float] = client.run(time.time)
        check_clocks(clocks, sent, time.time())
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


def check_clocks(clocks: Mapping[str, float], sent: float, received: float) -> None:
    """Refuse workers whose clock differs from that of this machine by more than `CLOCKS`.

    Args:
        clocks: time of each worker, s, by its address.
        sent: time of this machine before they were asked, s.
        received: its time when all had answered, s.

    Raises:
        WorkerError: names the worker.
    """
    for worker, clock in clocks.items():
        if (difference := max(sent - clock, clock - received)) > CLOCKS:
            raise WorkerError(
                f"scheduler: the worker {worker} has a clock that differs by {difference:.0f} s from that of this "
                "machine; set both by a time server."
            )


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
    return _lacking_bucket(needs) if needs.bucket else _lacking_folder(Path(needs.token))


def _lacking_folder(token: Path) -> str:
    if token.is_file():
        return ""
    return f"does not see the workspace {token.parent}; give a folder that all workers share."


def _lacking_bucket(needs: Needs) -> str:
    workspace = cache_of(needs.bucket)
    mirror = Mirror(needs.bucket, workspace)
    try:
        if not mirror.has(needs.token):
            return f"sees another workspace as {needs.bucket}; give a bucket and an address that all workers share."
        mirror.check()
        check_folder("AGEPIPE_CACHE", workspace)
    except AgepipeError as error:
        return f"cannot use the workspace ({str(error).rstrip('.')})."
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


@contextmanager
def _token(runtime: Runtime) -> Iterator[str]:
    """A file in the workspace, while the block runs."""
    if runtime.bucket:
        with runtime.mirror.token() as name:
            yield name
        return
    runtime.workspace.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=runtime.workspace, prefix=".cluster-") as file:
        yield file.name


def _reaches(url: str) -> bool:
    try:
        reach.check_alive(url)
    except ServiceError:
        return False
    return True
