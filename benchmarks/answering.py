"""Waiting for a server that was just started."""

import subprocess
import time
import urllib.request
from pathlib import Path

START = 180.0
"""How long a server may take to start on a busy machine, s."""


def wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until something answers at the address.

    Raises:
        RuntimeError: the process has ended or takes too long; the message is its log.
    """
    limit = time.monotonic() + START
    while process.poll() is None and time.monotonic() < limit:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise RuntimeError(log.read_text(encoding="utf-8"))
