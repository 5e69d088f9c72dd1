"""Log to MLflow with explicit run ids and an explicit store, never with an active run.

Threads and processes do not inherit MLflow's active run, so run ids are passed as arguments beside the `Runtime`.

A local store is accessed directly as files: an SQLite database with the folder `artifacts` beside it, whose absolute
address MLflow writes into the database. With a server the addresses would not depend on the folder, but the server
would have to be started first, which takes half a minute. After a move `prepare` rewrites the addresses
(`agepipe.registry.store.relocate`). With `tracking = "http://..."` the server's own artifacts are used instead.
"""

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agepipe.config.runtime import Runtime
from agepipe.core.errors import AgepipeError, TrackingError, first_line
from agepipe.core.provenance import environment, gone, process
from agepipe.core.record import digest_of
from agepipe.data.records import Rows
from agepipe.registry import store
from agepipe.registry.mlflow_format import described, flat, short
from agepipe.registry.tables import ROOT_TAG

if TYPE_CHECKING:  # MLflow takes seconds to import, and telemetry must be turned off before that
    from mlflow import MlflowClient
    from mlflow.entities import Run as Entity

Kind = Literal["pipeline", "ingest", "split", "search", "trial", "train", "evaluate", "compare", "release", "camera"]
Status = Literal["FINISHED", "FAILED", "KILLED"]

KEY, KIND, PROCESS, ERROR = "agepipe.key", "agepipe.kind", "agepipe.process", "agepipe.error"
PARENT, NOTE = "mlflow.parentRunId", "mlflow.note.content"
BATCH = 100
"""Maximum number of parameters in a call of MLflow."""


def client(runtime: Runtime) -> "MlflowClient":
    """The client of this process for a store, which is cached because opening a database is slow."""
    return _client(store.address(runtime), store.database(runtime), os.getpid())


@cache
def _client(address: str, path: Path | None, _: int) -> "MlflowClient":
    store.quiet()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)  # MLflow creates it only if the address names no driver
        store.check_writable(path)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=address, registry_uri=address)


def answering(runtime: Runtime) -> "MlflowClient":
    """The client for a server, after a check that the server answers.

    Raises:
        TrackingError: the server does not answer, or is not MLflow.
    """
    check_server(runtime)
    return client(runtime)


def prepare(runtime: Runtime, *, reading: bool = False) -> str:
    """Create the store and the experiment if they do not exist; call it before starting parallel work.

    Args:
        runtime: The store.
        reading: Whether nothing will be logged, so that a deleted experiment is accepted.

    Returns:
        The experiment's id.

    Raises:
        TrackingError: the database was changed by another MLflow or cannot be written, the server does not answer,
            or the experiment was deleted.
    """
    path = store.database(runtime)
    with store.locked(runtime, "prepare"):
        if path is None:
            check_server(runtime)
        elif path.exists() and store.prepared(path):
            store.relocate(path)
        return _experiment(runtime, path, reading)


def check_server(runtime: Runtime) -> None:
    """Send one request to a server, without MLflow's retries, which take minutes.

    Raises:
        TrackingError: nothing answers, a password is required, or it is no MLflow server.
    """
    store.check_server(runtime)
    store.quiet()
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        answer = http_request(
            get_default_host_creds(store.address(runtime)), "/api/2.0/mlflow/experiments/get-by-name", "GET",
            params={"experiment_name": runtime.experiment}, max_retries=0, timeout=store.SECONDS, raise_on_status=False,
        )  # fmt: skip
    except MlflowException as error:
        raise store.unusable(runtime, error, "") from error
    store.check_answer(runtime, answer.status_code, answer.text)


def _experiment(runtime: Runtime, path: Path | None, reading: bool) -> str:
    store.quiet()
    from mlflow.exceptions import MlflowException
    from mlflow.version import VERSION

    try:
        found = client(runtime).get_experiment_by_name(runtime.experiment)
        if found is not None and found.lifecycle_stage == "deleted" and not reading:
            raise TrackingError(
                f"tracking: the experiment '{runtime.experiment}' in {runtime.tracking} was deleted; bring it back "
                f"with `MLFLOW_TRACKING_URI={store.address(runtime)} mlflow experiments restore -x "
                f"{found.experiment_id}`."
            )
        if found is not None:
            return str(found.experiment_id)
        if path is None:
            return str(client(runtime).create_experiment(runtime.experiment))
        tags = {ROOT_TAG: path.parent.as_uri()}
        return str(client(runtime).create_experiment(runtime.experiment, store.artifacts(path).as_uri(), tags))
    except MlflowException as error:
        raise store.unusable(runtime, error, VERSION) from error


class Run:
    """An MLflow run that any thread or process can write to."""

    def __init__(self, runtime: Runtime, found: "Entity", *, resumed: bool = False) -> None:
        """Write to the run `found`; `resumed` is true if an earlier process created it."""
        self.run_id: str = found.info.run_id
        self.resumed = resumed
        self._runtime = runtime
        self._client = client(runtime)
        self._logged = set(found.data.params)  # MLflow never lets a parameter change

    def params(self, values: Mapping[str, Any]) -> None:
        """Log settings, nested ones by dotted name; parameters that the run has already are not changed."""
        from mlflow.entities import Param

        new = [Param(name, value) for name, value in flat(values).items() if name not in self._logged]
        for start in range(0, len(new), BATCH):
            self._client.log_batch(self.run_id, params=new[start : start + BATCH])
        self._logged.update(param.key for param in new)

    def metrics(
        self, values: Mapping[str, float], step: int | None = None, tags: Mapping[str, object] | None = None
    ) -> None:  # fmt: skip
        """Log figures and tags in one call, which takes as long for ten as for one; `step` is the epoch."""
        from mlflow.entities import Metric, RunTag

        now = int(time.time() * 1000)
        figures = [Metric(name, float(value), now, step or 0) for name, value in values.items()]
        self._client.log_batch(self.run_id, figures, tags=[RunTag(k, short(v)) for k, v in (tags or {}).items()])

    def tags(self, values: Mapping[str, object]) -> None:
        """Set tags; existing ones are replaced."""
        self.metrics({}, tags=values)

    def description(self, sentence: str) -> None:
        """Set the description at the top of the run's page; Markdown."""
        self.tags({NOTE: without_mentions(sentence)})

    def artifacts(self, source: Path, folder: str = "") -> None:
        """Upload the content of a folder to the run."""
        with transferring(self._runtime):
            self._client.log_artifacts(self.run_id, str(source), folder or None)

    def text(self, text: str, file: str) -> None:
        """Write a text file of the run, such as `config.toml`."""
        with transferring(self._runtime):
            self._client.log_text(self.run_id, text, file)

    def dataset(self, rows: Rows, context: Literal["training", "search", "test"]) -> None:
        """Log the rows that the run uses, with their digest."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        tags = [InputTag("mlflow.data.context", context)]
        # MLflow searches for the data set and then inserts it, so two trials that start at once would both insert it.
        with store.locked(self._runtime, "dataset"):
            self._client.log_inputs(self.run_id, [DatasetInput(Dataset(**described(rows)), tags)])


def without_mentions(text: str) -> str:
    """The text with each `@name` escaped, which MLflow's pages would turn into a link to a GitHub user."""
    return re.sub(r"(?<!\S)@(?=\w)", r"\\@", text)


@contextmanager
def run(
    runtime: Runtime,
    *,
    kind: Kind,
    name: str,
    key: str,
    parent: str | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, object] | None = None,
    after: str | None = None,
    watch: bool = False,
) -> Iterator[Run]:
    """Open a run, and end it with the block: FINISHED, FAILED after an error, KILLED after an interruption.

    An earlier run of this kind and key that failed, or whose process has ended, is resumed.

    Args:
        runtime: The store.
        kind: The kind of work.
        name: The name in the table of runs.
        key: Identifies the work among all of its kind, such as a digest of its inputs and settings.
        parent: The run to nest it under.
        params: Settings to log, nested ones by dotted name.
        tags: Further tags.
        after: A run that is continued, finished or not, if it is nested under the same parent.
        watch: Log the load of the machine every few seconds as well.
    """
    given = {**({PARENT: parent} if parent else {}), **(tags or {})}
    experiment = prepare(runtime)
    found = _continued(runtime, after, parent) or _reopened(runtime, experiment, kind, key)
    opened = found or _created(runtime, experiment, kind, name, key, given)
    try:
        if found is not None:
            opened.tags(given)
        opened.params(params or {})
        with system_metrics(runtime, opened.run_id) if watch else nullcontext():
            yield opened
    except BaseException as error:
        with suppress(Exception):  # the error that ended the work is raised, even if the store fails
            if not isinstance(error, Exception):
                _end_nested(runtime, opened.run_id, repr(error))
            end(runtime, opened.run_id, "FAILED" if isinstance(error, Exception) else "KILLED", repr(error))
        raise
    end(runtime, opened.run_id, "FINISHED")


def _created(
    runtime: Runtime, experiment: str, kind: Kind, name: str, key: str, given: Mapping[str, object]
) -> Run:  # fmt: skip
    tags = {KEY: digest_of(kind, key), KIND: kind, PROCESS: process(), "mlflow.source.name": "agepipe"}
    tags.update({name: short(value) for name, value in given.items()})
    if commit := environment().get("git.commit"):
        tags["mlflow.source.git.commit"] = commit
    return Run(runtime, client(runtime).create_run(experiment, tags=tags, run_name=name))


def _reopened(runtime: Runtime, experiment: str, kind: Kind, key: str) -> Run | None:
    query = f"tags.`{KEY}` = '{digest_of(kind, key)}' AND attributes.status != 'FINISHED'"
    for found in client(runtime).search_runs([experiment], query):
        owner = found.data.tags.get(PROCESS, "")
        if found.info.status == "RUNNING" and not gone(owner):
            continue  # another process works on it
        return _resumed(runtime, found)
    return None


def _continued(runtime: Runtime, after: str | None, parent: str | None) -> Run | None:
    found = own(runtime, after, parent)
    return None if found is None else _resumed(runtime, found)


def own(runtime: Runtime, run_id: str | None, parent: str | None) -> "Entity | None":
    """The run with this id if it is nested under this parent; None for a run of an earlier pipeline, or no run."""
    found = client(runtime).search_runs([prepare(runtime)], f"attributes.run_id = '{run_id}'") if run_id else []
    return next((one for one in found if one.data.tags.get(PARENT) == parent), None)


def _resumed(runtime: Runtime, found: "Entity") -> Run:
    again = Run(runtime, found, resumed=True)
    again.tags({PROCESS: process(), ERROR: ""})
    client(runtime).update_run(again.run_id, status="RUNNING")
    return again


def mark(runtime: Runtime, run_id: str | None, tags: Mapping[str, object], parent: str | None) -> None:
    """Set tags on a finished run if it is nested under `parent`; a run of an earlier pipeline is not changed."""
    if (found := own(runtime, run_id, parent)) is not None:
        Run(runtime, found).tags(tags)


def end(runtime: Runtime, run_id: str, status: Status, error: str = "") -> None:
    """End a run; `error` is why it did not finish."""
    if error:
        client(runtime).set_tag(run_id, ERROR, short(error))
    client(runtime).set_terminated(run_id, status)


def _end_nested(runtime: Runtime, run_id: str, error: str) -> None:
    """End the runs nested under an interrupted one, whose processes could not end them."""
    query = f"tags.`{PARENT}` = '{run_id}' AND attributes.status = 'RUNNING'"
    for found in client(runtime).search_runs([prepare(runtime)], query, max_results=1000):
        end(runtime, found.info.run_id, "KILLED", error)


def sweep(runtime: Runtime) -> list[str]:
    """End runs whose process has ended, as after `kill -9`; returns their ids. Runs of other hosts are not changed."""
    ended = []
    for found in client(runtime).search_runs([prepare(runtime)], "attributes.status = 'RUNNING'", max_results=1000):
        if gone(found.data.tags.get(PROCESS, process())):
            end(runtime, found.info.run_id, "KILLED", "its process ended unexpectedly")
            ended.append(found.info.run_id)
    return ended


@contextmanager
def system_metrics(runtime: Runtime, run_id: str, interval: float = 5.0) -> Iterator[None]:
    """Log the load of processor, memory, disk, network and GPU every `interval` seconds while the block runs."""
    store.quiet()
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, interval, resume_logging=True, tracking_uri=store.address(runtime))
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


def download(runtime: Runtime, uri: str, folder: Path) -> None:
    """Download the artifacts at a URI, a file or a folder, into a folder on this machine."""
    store.quiet()
    from mlflow.artifacts import download_artifacts

    with transferring(runtime):
        download_artifacts(uri, dst_path=str(folder), tracking_uri=store.address(runtime))


@contextmanager
def transferring(runtime: Runtime) -> Iterator[None]:
    """Turn the errors of a server's artifact store into one sentence, where clients use that store themselves.

    Raises:
        TrackingError: the artifact store refuses, does not answer, or needs a package that is not installed.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (AgepipeError, MlflowException):
        raise
    except Exception as error:  # botocore, google and azure each raise their own
        if store.database(runtime) is not None or isinstance(error, OSError):
            raise
        raise TrackingError(
            f"tracking: the artifacts of {runtime.tracking} cannot be used from here ({first_line(error)}); give this "
            "machine the credentials and the package of their store, or start the server with --artifacts-destination, "
            "so that it passes them on."
        ) from error
