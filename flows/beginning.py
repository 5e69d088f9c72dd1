"""What happens as a flow begins: its run says which process it is in, and runs whose process is gone are ended.

A command with a temporary server that is killed leaves its run Running in the workspace's database, and no server is
there to notice. The next flow that begins marks it as crashed.
"""

from typing import Any

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import Crashed

from agepipe.core.provenance import gone, process

PROCESS = "agepipe.process"
"""Label of a flow run: the process that it runs in."""
GOING_ON = [StateType.RUNNING, StateType.CANCELLING]


def begin(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 - Prefect calls it so
    """Label the run of a flow with its process; one that is not part of another ends the runs that are dead."""
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(flow_run.id, {PROCESS: process()})
        if flow_run.parent_task_run_id is None:
            end_dead(client)


def end_dead(client: SyncPrefectClient) -> list[FlowRun]:
    """Mark runs whose process is gone as crashed; those that have no label, or another host's, are left alone.

    Returns:
        The runs that were marked.
    """
    going = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=GOING_ON)))
    dead = [
        one for one in client.read_flow_runs(flow_run_filter=going) if gone(str(one.labels.get(PROCESS, process())))
    ]
    for one in dead:
        client.set_flow_run_state(one.id, Crashed(message="Its process ended without a word."), force=True)
    return dead
