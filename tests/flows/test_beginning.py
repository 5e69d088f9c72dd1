"""Flow runs whose process was killed, on a real Prefect server."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from uuid import UUID

import pytest
from prefect import flow, runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL

from agepipe.core.provenance import process
from flows.beginning import PROCESS, begin

pytestmark = pytest.mark.usefixtures("prefect_server")

KILLED = """
import os, signal
from prefect import flow, runtime
from flows.beginning import begin

@flow(on_running=[begin])
def inner():
    print(runtime.flow_run.id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

@flow(on_running=[begin])
def outer():
    print(runtime.flow_run.id, flush=True)
    inner()

outer()
"""


@flow(on_running=[begin])
def mine() -> str:
    return str(runtime.flow_run.id)


@flow
def unlabelled() -> dict[str, str]:
    """Of another program, or of another host."""
    with get_client(sync_client=True) as client:
        other = client.create_flow_run(unlabelled)
        client.update_flow_run_labels(other.id, {PROCESS: "another-host:1:0.0"})
        for one in (runtime.flow_run.id, other.id):
            client.set_flow_run_state(one, running(), force=True)
        mine()
        return {str(one): state(client, one) for one in (str(runtime.flow_run.id), str(other.id))}


def running():  # noqa: ANN201 - a Prefect state
    from prefect.states import Running

    return Running()


@pytest.fixture
def client() -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as opened:
        yield opened


def state(client: SyncPrefectClient, run: str) -> str:
    return str(client.read_flow_run(UUID(run)).state_type.value)  # type: ignore[union-attr]


@pytest.mark.slow
def test_the_next_flow_marks_runs_whose_process_was_killed_as_crashed(client: SyncPrefectClient) -> None:
    environ = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())}
    done = subprocess.run(
        [sys.executable, "-c", KILLED], env=environ, stdout=subprocess.PIPE, text=True, timeout=120, check=False
    )
    runs = done.stdout.split()
    assert (done.returncode, len(runs)) == (-signal.SIGKILL, 2)
    assert [state(client, run) for run in runs] == ["RUNNING"] * 2
    own = mine()
    assert [state(client, run) for run in runs] == ["CRASHED"] * 2
    assert state(client, own) == "COMPLETED"
    assert client.read_flow_run(UUID(own)).labels[PROCESS] == process()


def test_runs_of_other_programs_hosts_and_living_processes_are_left_alone() -> None:
    assert set(unlabelled().values()) == {"RUNNING"}
