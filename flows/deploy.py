"""The flow that deploys a registered version to the cameras."""

from prefect import flow

from agepipe.config.runtime import Runtime
from agepipe.serving.deploy import Deployed
from flows.beginning import begin
from tasks.deploy import deploy as put


@flow(name="deploy", flow_run_name="deploy {model}", on_running=[begin])
def deploy(model: str = "champion", name: str = "", runtime: Runtime | None = None) -> Deployed:
    """Verify a version's predictions, copy it, and make it the deployed one; cameras switch between two frames.

    Args:
        model: An alias or a version.
        name: The registered model; empty takes `agepipe`, or the only one there is.
        runtime: Workspace and tracking store; by default those of the worker.
    """
    return put(model, name, runtime or Runtime())
