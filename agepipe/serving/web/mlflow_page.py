"""MLflow's server behind `Guard` and a password; `mlflow server --app-name agepipe` serves it.

MLflow accepts requests from pages of all ports of this machine, without a password. Write access to the registry must
be protected, because registered versions contain code that the next command runs.
"""

import os

from agepipe.core.ports import is_loopback
from agepipe.serving.web.host_check import Guard

AUTH = "AGEPIPE_PAGE_AUTH"
"""Environment variable that holds USER:PASSWORD."""
HOST = "AGEPIPE_PAGE_HOST"
"""Environment variable that holds the address on which it is served."""


def guarded() -> Guard:
    """Create the app.

    Raises:
        KeyError: an environment variable is not set; the server does not run without a password.
    """
    auth, host = os.environ[AUTH], os.environ[HOST]
    from mlflow.server.fastapi_app import app

    return Guard(app, host, auth=auth, free="/health", any_name=not is_loopback(host))
