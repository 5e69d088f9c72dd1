"""Jobs of the Docker and the Kubernetes pool, as Prefect's own workers render them; no container is started."""

import asyncio
import json
from typing import Any

import pytest
from prefect_docker.worker import DockerWorkerJobConfiguration
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

from flows.services import TEMPLATE

VARIABLES = {
    "agepipe_image": "registry.example/agepipe:1",
    "agepipe_workspace": "s3://bucket/team",
    "agepipe_tracking": "http://mlflow.example:5000",
    "agepipe_namespace": "ages",
}
PLACES = {
    "AGEPIPE_DIRECTORY": "/work",
    "AGEPIPE_CACHE": "cache",
    "AGEPIPE_WORKSPACE": "s3://bucket/team",
    "AGEPIPE_TRACKING": "http://mlflow.example:5000",
}


@pytest.fixture(scope="module", autouse=True)
def variables(prefect_server: None) -> None:
    """As `prefect variable set` leaves them on the server."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import VariableCreate

    with get_client(sync_client=True) as client:
        for name, value in VARIABLES.items():
            client.create_variable(VariableCreate(name=name, value=value))


async def _rendered(kind: type[Any], pool: str) -> tuple[Any, str]:
    """The job of a new flow run, and the id of the run."""
    from prefect import flow
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        run = await client.create_flow_run(flow(lambda: None, name="any"))
        job = await kind.from_template_and_values(_template(pool), {}, client=client)
        job.prepare_for_flow_run(run)
        return job, str(run.id)


def _template(pool: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((TEMPLATE.parent / f"{pool}.json").read_text(encoding="utf-8"))
    return found


def test_a_docker_worker_starts_the_image_with_the_places_of_the_variables() -> None:
    job, run = asyncio.run(_rendered(DockerWorkerJobConfiguration, "docker"))
    assert (job.image, job.volumes, job.auto_remove) == ("registry.example/agepipe:1", ["agepipe:/work"], True)
    assert PLACES.items() <= job.env.items()
    assert job.env["PREFECT__FLOW_RUN_ID"] == run
    assert job.command.endswith("flow-run execute")


def test_a_kubernetes_worker_starts_the_image_as_no_root_in_the_namespace() -> None:
    job, run = asyncio.run(_rendered(KubernetesWorkerJobConfiguration, "kubernetes"))
    assert job.namespace == job.job_manifest["metadata"]["namespace"] == "ages"
    pod = job.job_manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "registry.example/agepipe:1"
    given = {one["name"]: one.get("value") for one in container["env"]}
    assert PLACES.items() <= given.items()
    assert given["PREFECT__FLOW_RUN_ID"] == run
    assert container["args"][-2:] == ["flow-run", "execute"]
    assert container["volumeMounts"][0]["name"] == pod["volumes"][0]["name"]
    assert pod["securityContext"]["runAsNonRoot"]


@pytest.mark.parametrize("pool", ["process", "docker", "kubernetes"])
def test_no_pool_lets_a_run_change_its_program_or_its_environment(pool: str) -> None:
    variables = _template(pool)["variables"]
    assert (variables["properties"], variables["additionalProperties"]) == ({}, False)
