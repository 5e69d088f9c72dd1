"""The task that deploys a registered version to the cameras. Never cached, since the registry changes."""

from prefect import task
from prefect.artifacts import create_markdown_artifact

from agepipe.config.runtime import Runtime
from agepipe.core import artifacts
from agepipe.serving import deploy as work
from agepipe.serving.deploy import Deployed


@task
def deploy(model: str, name: str, runtime: Runtime) -> Deployed:
    """Verify the bundle against the registered model, copy it, and make it the deployed one."""
    artifacts.sweep(runtime.workspace)
    done = work.deploy(model, runtime, name)
    create_markdown_artifact(
        key="deployed",
        markdown=f"**{done.title}**, deployed at {done.when} UTC (model `{done.digest[:10]}`, requested as `{model}`).",
        description="The version that cameras now use",
    )
    return done
