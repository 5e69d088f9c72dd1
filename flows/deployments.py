"""What `agepipe up` puts on the server that it keeps: the flows of `prefect.yaml`, and a watch over dead runs."""

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
"""Four heartbeats: a run that a busy machine holds up for a minute is not dead."""
LIVING = "prefect.flow-run.heartbeat"
ENDINGS = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}


def watch_over_dead_runs() -> None:
    """Make the server mark a run as crashed when its process has died; without it `kill -9` leaves it running."""
    try:
        _ = Automation.read(name=WATCH)  # raises where there is none
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
    """Put the flows of `prefect.yaml` on the work pool; false where the working folder has none.

    Raises:
        ServiceError: Prefect refused them; says what it said.
    """
    if not Path("prefect.yaml").is_file():
        return False
    try:
        tell_prefect(runtime, api_url, "deploy", "--all")
    except ServiceError as error:
        raise ServiceError(f"prefect.yaml: {error}") from error
    return True
