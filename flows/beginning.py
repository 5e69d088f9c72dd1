"""Hook at the start of a flow: label its run with its process, and end runs whose process has died.

A killed command with a temporary server leaves its run Running in the workspace's database, and its server is gone too.
The next flow that starts marks the run as crashed.
"""

from typing import Any

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import Crashed

from agepipe.core.provenance import gone, process

PROCESS = "agepipe.process"
"""Label of a flow run that names its process."""
GOING_ON = [StateType.RUNNING, StateType.CANCELLING]


def begin(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 - the signature that Prefect calls
    """Label a flow run with its process; a run that is no subflow also ends dead runs."""
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(flow_run.id, {PROCESS: process()})
        if flow_run.parent_task_run_id is None:
            end_dead(client)


def end_dead(client: SyncPrefectClient) -> list[FlowRun]:
    """Mark runs whose process has died as crashed; runs without the label or of another host are left alone.

    Returns:
        The marked runs.
    """
    going = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=GOING_ON)))
    dead = [
        one for one in client.read_flow_runs(flow_run_filter=going) if gone(str(one.labels.get(PROCESS, process())))
    ]
    for one in dead:
        client.set_flow_run_state(one.id, Crashed(message="Its process has died."), force=True)
    return dead
