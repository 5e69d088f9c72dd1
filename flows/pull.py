"""The pull step of the deployments in `prefect.yaml`: a run works in the folder of its worker.

The code is that which is installed where the worker runs, so a deployment holds no path of the machine that made it.
"""

import os
from pathlib import Path

from agepipe.core.errors import ConfigError

DIRECTORY = "AGEPIPE_DIRECTORY"
"""Environment variable of a worker: the folder to which its runs' relative paths refer."""
PLACES = ("AGEPIPE_WORKSPACE", "AGEPIPE_TRACKING")
"""Variables that a container pool sets to Prefect variables; one that does not exist leaves them empty."""


def workers_folder() -> dict[str, str]:
    """Change to the folder of the worker: AGEPIPE_DIRECTORY, or PWD, which a shell sets to where it was started.

    Prefect starts each run of a process worker in a temporary folder, but leaves PWD as it is.

    Returns:
        `directory`, the absolute path, for Prefect.

    Raises:
        ConfigError: neither is a folder, or the place of the results is empty.
    """
    folder = os.environ.get(DIRECTORY) or os.environ.get("PWD", "")
    if not folder or not Path(folder).is_dir():
        raise ConfigError(f"{DIRECTORY}: {folder!r} is not a folder on this worker; set it to the path of one.")
    for name in PLACES:
        if os.environ.get(name) == "":
            raise ConfigError(
                f"{name}: empty on this worker, so the results would be lost; set the Prefect variable {name.lower()}, "
                "or remove this one."
            )
    os.chdir(folder)
    return {"directory": str(Path.cwd())}
