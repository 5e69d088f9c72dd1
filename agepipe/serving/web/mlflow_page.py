"""MLflow's server behind `Guard` and a password; `mlflow server --app-name agepipe` serves it.

MLflow accepts requests from pages of all ports of this machine, without a password. Write access to the registry must
be protected, because registered versions contain code that the next command runs.
"""

import os

from agepipe.serving.web.host_check import Guard

AUTH = "AGEPIPE_PAGE_AUTH"
"""Environment variable that holds USER:PASSWORD."""


def guarded() -> Guard:
    """Create the app.

    Raises:
        KeyError: the environment variable is not set; the server does not run without a password.
    """
    auth = os.environ[AUTH]
    from mlflow.server.fastapi_app import app

    return Guard(app, "127.0.0.1", auth=auth, free="/health")
