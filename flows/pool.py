"""Create or update the work pool of the flows: `python -m flows.pool`.

The Prefect CLI is not used for this, because it makes the server download the types of work pools from GitHub.
"""

import json

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate

from flows.services import POOL, TEMPLATE


def make() -> None:
    """Create the pool on the server that PREFECT_API_URL names, or update its template."""
    pool = WorkPoolCreate(name=POOL, type="process", base_job_template=json.loads(TEMPLATE.read_text(encoding="utf-8")))
    with get_client(sync_client=True) as client:
        client.create_work_pool(pool, overwrite=True)


if __name__ == "__main__":
    make()
