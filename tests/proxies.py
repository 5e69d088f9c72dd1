"""A proxy on loopback that lets nobody out and notes who wanted to, and a user's environment that leads to it."""

import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

LOOPBACK = "127.0.0.1,localhost,::1"
TESTING = (
    "CI",
    "GITHUB_ACTIONS",
    "PYTEST_",
    "PREFECT_",
    "MLFLOW_",
    "ORT_",
    "DO_NOT_TRACK",
    "HF_HUB",
    "AGEPIPE_",
    "XDG_",
)
"""What begins so is taken out of the environment: dependencies are silent where they find themselves tested."""


@dataclass
class Proxy:
    """What was asked for, and the environment of a user behind it."""

    port: int
    home: Path
    asked: list[str] = field(default_factory=list)

    def environ(self, **more: str) -> dict[str, str]:
        """Ours without what silences dependencies, with an empty home folder and this proxy for all schemes."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(TESTING)}
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            kept[name] = kept[name.upper()] = f"http://127.0.0.1:{self.port}"
        return {**kept, "no_proxy": LOOPBACK, "NO_PROXY": LOOPBACK, "HOME": str(self.home), **more}


@contextmanager
def proxy(home: Path) -> Iterator[Proxy]:
    """One that runs until the block ends."""
    home.mkdir(parents=True, exist_ok=True)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(f"{self.command} {self.path}")
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_PUT = do_HEAD = do_CONNECT = do_GET  # noqa: N815  as the base class calls them

        def log_message(self, *words: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Proxy(server.server_port, home)
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
