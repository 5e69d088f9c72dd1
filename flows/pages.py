"""Prefect's server behind the guard of our own pages, as `agepipe up` runs it: `python -P -m flows.pages PORT`.

Prefect has no check of the name by which it was called, and lets itself be shown inside other pages.
"""

import sys

import uvicorn
from prefect.server.api.server import create_app
from prefect.settings import get_current_settings

from agepipe.serving.web.host_check import Guard

HOST = "127.0.0.1"


def main(port: int) -> None:
    """Serve Prefect's API and page until the process is told to end."""
    settings = get_current_settings().server
    uvicorn.run(
        Guard(create_app(final=True), HOST),
        host=HOST, port=port, workers=1, log_level=settings.logging_level.lower(), server_header=False,
        timeout_keep_alive=settings.api.keepalive_timeout,
    )  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]))
