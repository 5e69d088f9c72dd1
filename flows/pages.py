"""The Prefect server that `agepipe up` runs: `python -P -m flows.pages HOST PORT`.

It is wrapped in `host_check.Guard`, since Prefect checks no Host header and can be framed by other pages.
"""

import sys

import uvicorn
from prefect.server.api.server import create_app
from prefect.settings import get_current_settings

from agepipe.core.ports import is_loopback
from agepipe.serving.web.host_check import Guard


def main(host: str, port: int) -> None:
    """Serve Prefect's API and UI until the process is terminated."""
    settings = get_current_settings().server
    uvicorn.run(
        Guard(create_app(final=True), host, any_name=not is_loopback(host)),
        host=host, port=port, workers=1, log_level=settings.logging_level.lower(), server_header=False,
        timeout_keep_alive=settings.api.keepalive_timeout,
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
