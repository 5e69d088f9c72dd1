"""What `agepipe up` creates on the Prefect server: deployments of `prefect.yaml`, an automation for dead runs."""

from datetime import timedelta
from pathlib import Path

from prefect.automations import Automation
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from agepipe.config.runtime import Runtime
from agepipe.core.errors import ServiceError
from flows.services import tell_prefect

WATCH = "agepipe: runs without a heartbeat have crashed"
HEARTBEATS_MISSED = timedelta(seconds=120)
"""Four heartbeats, so that a run on a busy machine is not taken for dead."""
LIVING = "prefect.flow-run.heartbeat"
ENDINGS = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}


def watch_over_dead_runs() -> None:
    """Create the automation that marks a run as crashed when its process has died; `kill -9` leaves it Running."""
    try:
        _ = Automation.read(name=WATCH)  # raises if it does not exist
    except ValueError:
        Automation(
            name=WATCH,
            trigger=EventTrigger(
                after={LIVING},
                expect={LIVING, *ENDINGS},
                match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=HEARTBEATS_MISSED,
            ),
            actions=[ChangeFlowRunState(state=StateType.CRASHED, message="No heartbeat: its process has died.")],
        ).create()


def deploy(runtime: Runtime, api_url: str) -> bool:
    """Deploy the flows of `prefect.yaml` to the work pool; false if the working folder has no such file.

    Raises:
        ServiceError: Prefect refused them; includes its message.
    """
    if not Path("prefect.yaml").is_file():
        return False
    try:
        tell_prefect(runtime, api_url, "deploy", "--all")
    except ServiceError as error:
        raise ServiceError(f"prefect.yaml: {error}") from error
    return True
