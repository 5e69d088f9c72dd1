"""The task that puts a registered version where cameras find it. Never cached: the registry lives on."""

from prefect import task
from prefect.artifacts import create_markdown_artifact

from agepipe import artifact
from agepipe.serve import deploy as work
from agepipe.serve.deploy import Deployed
from agepipe.where import Where


@task
def deploy(model: str, name: str, where: Where) -> Deployed:
    """Check the bundle against the registered model, copy it and switch the pointer."""
    artifact.sweep(where.workspace)
    done = work.deploy(model, where, name)
    create_markdown_artifact(
        key="deployed",
        markdown=f"**{done.title}** serves since {done.when} UTC (model `{done.digest[:10]}`, asked for as `{model}`).",
        description="The version that cameras use from now on",
    )
    return done
