"""The command line in a process of its own, and free ports for the servers that it starts."""

import os
import subprocess
import sys
from pathlib import Path

import psutil

from agepipe.core.ports import bound

AGEPIPE = Path(sys.executable).with_name("agepipe")


def environ() -> dict[str, str]:
    """The environment without the Prefect server of this test session, and without the user's Prefect profile."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**others, "PREFECT_PROFILES_PATH": os.devnull}


def agepipe(folder: Path, *words: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder; `timeout` in seconds."""
    command = [AGEPIPE, *map(str, words)]
    return subprocess.run(
        command, cwd=folder, env=environ(), capture_output=True, text=True, timeout=timeout, check=False
    )


def lives(process: psutil.Process) -> bool:
    """Whether a process has not ended; one that nobody has waited for yet has."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    with bound("", "127.0.0.1", 0) as free:
        return int(free.getsockname()[1])
