"""Make the work pool of the flows, or give an older one the same template: `python -m flows.pool`.

Prefect's own command for this makes the server fetch the types of work pools from GitHub.
"""

import json

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate

from flows.services import POOL, TEMPLATE


def make() -> None:
    """Make it on the server that the environment names."""
    pool = WorkPoolCreate(name=POOL, type="process", base_job_template=json.loads(TEMPLATE.read_text(encoding="utf-8")))
    with get_client(sync_client=True) as client:
        client.create_work_pool(pool, overwrite=True)


if __name__ == "__main__":
    make()
