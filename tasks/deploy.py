"""The task that puts a registered version where cameras find it. Never cached: the registry lives on."""

from prefect import task
from prefect.artifacts import create_markdown_artifact

from agepipe.config.runtime import Runtime
from agepipe.core import artifacts
from agepipe.serving import deploy as work
from agepipe.serving.deploy import Deployed


@task
def deploy(model: str, name: str, runtime: Runtime) -> Deployed:
    """Check the bundle against the registered model, copy it and switch the pointer."""
    artifacts.sweep(runtime.workspace)
    done = work.deploy(model, runtime, name)
    create_markdown_artifact(
        key="deployed",
        markdown=f"**{done.title}** serves since {done.when} UTC (model `{done.digest[:10]}`, asked for as `{model}`).",
        description="The version that cameras use from now on",
    )
    return done
