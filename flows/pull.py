"""The pull step of the deployments in `prefect.yaml`: a run works in the folder of its worker.

The code is that which is installed where the worker runs, so a deployment holds no path of the machine that made it.
"""

import os
from pathlib import Path

from agepipe.core.errors import ConfigError

DIRECTORY = "AGEPIPE_DIRECTORY"
"""Environment variable of a worker: the folder to which its runs' relative paths refer."""


def workers_folder() -> dict[str, str]:
    """Change to the folder of the worker: AGEPIPE_DIRECTORY, or the one in which it was started.

    Prefect starts each run of a process worker in a temporary folder, but leaves PWD as it is.

    Returns:
        `directory`, the absolute path, for Prefect.

    Raises:
        ConfigError: AGEPIPE_DIRECTORY is not a folder.
    """
    named = os.environ.get(DIRECTORY)
    if named and not Path(named).is_dir():
        raise ConfigError(f"{DIRECTORY}: {named!r} is not a folder on this worker; create it, or name another one.")
    started = os.environ.get("PWD", "")
    os.chdir(named or (started if Path(started).is_dir() else "."))
    return {"directory": str(Path.cwd())}
