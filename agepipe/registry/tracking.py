"""The one module that logs to MLflow: explicit run ids over an explicit address, never an active run.

MLflow's active run is not inherited by threads or processes; a run id passes as an argument beside the `Runtime`.

A local store is read and written directly, as files: a SQLite database with the folder `artifacts` beside it, whose
absolute address MLflow keeps in the database. Through a server the addresses would survive a move, but nothing could
be read or logged without first starting one, which takes half a minute. So: direct files, and `relocate` after a
move, which `prepare` does by itself. With `tracking = "http://..."` the server's own artifacts are used instead.
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
from agepipe.core.errors import TrackingError
from agepipe.core.provenance import environment, gone, process
from agepipe.core.record import digest_of
from agepipe.data.records import Rows
from agepipe.registry import store
from agepipe.registry.mlflow_format import described, flat, short
from agepipe.registry.tables import ROOT_TAG

if TYPE_CHECKING:  # MLflow takes seconds to import, and reports its use unless told before that it must not
    from mlflow import MlflowClient
    from mlflow.entities import Run as Entity

Kind = Literal["pipeline", "ingest", "split", "search", "trial", "train", "evaluate", "compare", "release", "camera"]
Status = Literal["FINISHED", "FAILED", "KILLED"]

KEY, KIND, PROCESS, ERROR = "agepipe.key", "agepipe.kind", "agepipe.process", "agepipe.error"
PARENT, NOTE = "mlflow.parentRunId", "mlflow.note.content"
BATCH = 100
"""MLflow refuses more parameters at once."""


def client(runtime: Runtime) -> "MlflowClient":
    """The client of this process for a store, made once: opening a database costs more than using it."""
    return _client(store.address(runtime), store.database(runtime), os.getpid())


@cache
def _client(address: str, path: Path | None, _: int) -> "MlflowClient":
    store.quiet()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)  # MLflow makes it only where the address names no driver
        store.check_writable(path)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=address, registry_uri=address)


def answering(runtime: Runtime) -> "MlflowClient":
    """The client for a server that was just seen to answer.

    Raises:
        TrackingError: it does not answer as MLflow does.
    """
    check_server(runtime)
    return client(runtime)


def prepare(runtime: Runtime, *, reading: bool = False) -> str:
    """Make the store and the experiment, before anything fans out; quick and harmless when they are there.

    Args:
        runtime: The store.
        reading: Whether nothing will be logged, so that an experiment that was deleted will do.

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
        elif path.exists() and store.known(path):
            store.relocate(path)
        return _experiment(runtime, path, reading)


def check_server(runtime: Runtime) -> None:
    """Ask a server one real question, without the retries by which MLflow would go on asking for minutes.

    Raises:
        TrackingError: nothing answers there, it wants a password, or it is no MLflow server.
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
    """An MLflow run to write to, from any thread or process."""

    def __init__(self, runtime: Runtime, found: "Entity", *, resumed: bool = False) -> None:
        """Use `run`; `resumed` tells whether an earlier process began it."""
        self.run_id: str = found.info.run_id
        self.resumed = resumed
        self._where = runtime
        self._client = client(runtime)
        self._logged = set(found.data.params)  # MLflow never lets a parameter change

    def params(self, values: Mapping[str, Any]) -> None:
        """Log settings, nested ones by dotted name; what the run has already stays as it is."""
        from mlflow.entities import Param

        new = [Param(name, value) for name, value in flat(values).items() if name not in self._logged]
        for start in range(0, len(new), BATCH):
            self._client.log_batch(self.run_id, params=new[start : start + BATCH])
        self._logged.update(param.key for param in new)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Log figures in one call, for an epoch where `step` says which: ten cost no more than one."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self.run_id, [Metric(k, float(v), now, step or 0) for k, v in values.items()])

    def tags(self, values: Mapping[str, object]) -> None:
        """Set tags; they may change."""
        from mlflow.entities import RunTag

        self._client.log_batch(self.run_id, tags=[RunTag(name, short(value)) for name, value in values.items()])

    def description(self, sentence: str) -> None:
        """What the run is, at the top of its page; Markdown."""
        self.tags({NOTE: without_mentions(sentence)})

    def artifacts(self, source: Path, folder: str = "") -> None:
        """Copy all that a folder holds into the run."""
        self._client.log_artifacts(self.run_id, str(source), folder or None)

    def text(self, text: str, file: str) -> None:
        """Write a text file of the run, such as `config.toml`."""
        self._client.log_text(self.run_id, text, file)

    def dataset(self, rows: Rows, context: Literal["training", "search", "test"]) -> None:
        """Name the rows that the run worked on, by their own digest."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        tags = [InputTag("mlflow.data.context", context)]
        # MLflow looks for the data set and then inserts it: two trials that start at once would both insert.
        with store.locked(self._where, "dataset"):
            self._client.log_inputs(self.run_id, [DatasetInput(Dataset(**described(rows)), tags)])


def without_mentions(text: str) -> str:
    """The text with each `@name` escaped: MLflow's pages make a link to GitHub's user of that name out of it."""
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
    """Open a run and end it as the block ends: FINISHED, FAILED on an error, KILLED on an interruption.

    An earlier run of this kind and key that failed, or whose process is gone, is taken up again.

    Args:
        runtime: The store.
        kind: What the run does.
        name: What the table of runs shows.
        key: What tells this piece of work from all others, such as a digest of its inputs and settings.
        parent: The run to nest it under.
        params: Settings to log, nested ones by dotted name.
        tags: Further tags.
        after: A run that this work goes on with, finished or not, if it is nested under the same parent.
        watch: Log the machine's load every few seconds as well.
    """
    given = {**({PARENT: parent} if parent else {}), **(tags or {})}
    found = _continued(runtime, after, parent) or _reopened(runtime, kind, key)
    opened = found or _created(runtime, kind, name, key, given)
    try:
        if found is not None:
            opened.tags(given)
        opened.params(params or {})
        with system_metrics(runtime, opened.run_id) if watch else nullcontext():
            yield opened
    except BaseException as error:
        with suppress(Exception):  # the error to see is the one that ended the work, even when the store is lost
            if not isinstance(error, Exception):
                _end_nested(runtime, opened.run_id, repr(error))
            end(runtime, opened.run_id, "FAILED" if isinstance(error, Exception) else "KILLED", repr(error))
        raise
    end(runtime, opened.run_id, "FINISHED")


def _created(runtime: Runtime, kind: Kind, name: str, key: str, given: Mapping[str, object]) -> Run:
    tags = {KEY: digest_of(kind, key), KIND: kind, PROCESS: process(), "mlflow.source.name": "agepipe"}
    tags.update({name: short(value) for name, value in given.items()})
    if commit := environment().get("git.commit"):
        tags["mlflow.source.git.commit"] = commit
    return Run(runtime, client(runtime).create_run(prepare(runtime), tags=tags, run_name=name))


def _reopened(runtime: Runtime, kind: Kind, key: str) -> Run | None:
    query = f"tags.`{KEY}` = '{digest_of(kind, key)}' AND attributes.status != 'FINISHED'"
    for found in client(runtime).search_runs([prepare(runtime)], query):
        owner = found.data.tags.get(PROCESS, "")
        if found.info.status == "RUNNING" and not gone(owner):
            continue  # someone is at work on it
        return _taken_up(runtime, found)
    return None


def _continued(runtime: Runtime, after: str | None, parent: str | None) -> Run | None:
    found = own(runtime, after, parent)
    return None if found is None else _taken_up(runtime, found)


def own(runtime: Runtime, run_id: str | None, parent: str | None) -> "Entity | None":
    """The run of this id if it is nested under the same parent; None for one of an earlier pipeline, or none."""
    found = client(runtime).search_runs([prepare(runtime)], f"attributes.run_id = '{run_id}'") if run_id else []
    return next((one for one in found if one.data.tags.get(PARENT) == parent), None)


def _taken_up(runtime: Runtime, found: "Entity") -> Run:
    again = Run(runtime, found, resumed=True)
    again.tags({PROCESS: process(), ERROR: ""})
    client(runtime).update_run(again.run_id, status="RUNNING")
    return again


def mark(runtime: Runtime, run_id: str | None, tags: Mapping[str, object], parent: str | None) -> None:
    """Set tags on a finished run that is nested under `parent`; a run of an earlier pipeline keeps its own."""
    if (found := own(runtime, run_id, parent)) is not None:
        Run(runtime, found).tags(tags)


def end(runtime: Runtime, run_id: str, status: Status, error: str = "") -> None:
    """End a run, with the reason where it did not finish."""
    if error:
        client(runtime).set_tag(run_id, ERROR, short(error))
    client(runtime).set_terminated(run_id, status)


def _end_nested(runtime: Runtime, run_id: str, error: str) -> None:
    """End what was nested under a run that was interrupted, in processes that could not do so themselves."""
    query = f"tags.`{PARENT}` = '{run_id}' AND attributes.status = 'RUNNING'"
    for found in client(runtime).search_runs([prepare(runtime)], query, max_results=1000):
        end(runtime, found.info.run_id, "KILLED", error)


def sweep(runtime: Runtime) -> list[str]:
    """End runs whose process is gone, as after `kill -9`; returns their ids. Those of other hosts are left alone."""
    ended = []
    for found in client(runtime).search_runs([prepare(runtime)], "attributes.status = 'RUNNING'", max_results=1000):
        if gone(found.data.tags.get(PROCESS, process())):
            end(runtime, found.info.run_id, "KILLED", "its process ended without a word")
            ended.append(found.info.run_id)
    return ended


@contextmanager
def system_metrics(runtime: Runtime, run_id: str, interval: float = 5.0) -> Iterator[None]:
    """Log load of processor, memory, disk, network and GPU every `interval` seconds while the block runs."""
    store.quiet()
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, interval, resume_logging=True, tracking_uri=store.address(runtime))
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


def download(runtime: Runtime, uri: str, folder: Path) -> None:
    """Copy the artifacts at an address, a file or a folder, into a folder on this machine."""
    store.quiet()
    from mlflow.artifacts import download_artifacts

    download_artifacts(uri, dst_path=str(folder), tracking_uri=store.address(runtime))
