"""Options that several commands share, and how they become a `Where`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:  # polars and numpy take longer to import than the help may take to answer
    from agepipe.where import Where

Workspace = Annotated[
    Path, typer.Option(envvar="AGEPIPE_WORKSPACE", help="Folder of data sets, checkpoints, bundles and evaluations.")
]
Tracking = Annotated[
    str,
    typer.Option(envvar="AGEPIPE_TRACKING", help="MLflow tracking URI: a local SQLite file or a server's address."),
]
ModelName = Annotated[str, typer.Option("--name", help="Name of the registered model.")]

WORKSPACE, TRACKING = Path("workspace"), "sqlite:///mlruns/mlflow.db"


def where(**values: Any) -> "Where":
    """The `Where` of a command's options.

    Raises:
        ConfigError: names the option that cannot be used.
    """
    from agepipe.settings import checked
    from agepipe.where import Where

    return checked(Where, values, "option")
