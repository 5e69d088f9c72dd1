"""MLflow's server behind the guard of our own pages and a password: what `mlflow server --app-name agepipe` serves.

MLflow lets pages of every port of this machine write, and asks nobody for a password. Whoever can change its registry
decides which code the next command loads.
"""

import os

from agepipe.serving.web.host_check import Guard

AUTH = "AGEPIPE_PAGE_AUTH"
"""Environment variable that holds USER:PASSWORD."""


def guarded() -> Guard:
    """The app.

    Raises:
        KeyError: no password was given; it never runs without one.
    """
    auth = os.environ[AUTH]
    from mlflow.server.fastapi_app import app

    return Guard(app, "127.0.0.1", auth=auth, free="/health")
