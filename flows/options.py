"""Options of the commands, and how they become a `Runtime`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from agepipe.core.errors import ConfigError

if TYPE_CHECKING:  # polars and numpy take longer to import than the help may take to answer
    from agepipe.config.runtime import Runtime

T = TypeVar("T")


def path(option: str) -> dict[str, Any]:
    """Arguments of Typer for an option or argument that is a path."""
    return {"parser": _filled(option, Path), "metavar": "PATH"}


def text(option: str) -> dict[str, Any]:
    """Arguments of Typer for an option or argument that names a source or a store."""
    return {"parser": _filled(option, str), "metavar": "TEXT"}


def _filled(option: str, kind: Callable[[Any], T]) -> Callable[[Any], T]:
    """Convert a value and refuse an empty one: an unset shell variable would otherwise mean the current folder."""

    def made(value: Any) -> T:
        if value == "":
            raise ConfigError(f"{option}: '' is empty; name a file or folder ('.' is the current folder).")
        return kind(value)

    return made


Workspace = Annotated[
    str,
    typer.Option(
        **{**text("--workspace"), "metavar": "PATH|URI"},
        envvar="AGEPIPE_WORKSPACE",
        help="Folder of data sets, checkpoints, bundles and evaluations, or s3://BUCKET/FOLDER (also gs, az, file).",
    ),
]
Tracking = Annotated[
    str,
    typer.Option(
        **text("--tracking"),
        envvar=["AGEPIPE_TRACKING", "MLFLOW_TRACKING_URI"],
        help="MLflow tracking URI: a local SQLite file or a server's address.",
    ),
]
Experiment = Annotated[
    str,
    typer.Option(
        **text("--experiment"),
        envvar=["AGEPIPE_EXPERIMENT", "MLFLOW_EXPERIMENT_NAME"],
        help="MLflow experiment of the runs.",
    ),
]
ModelName = Annotated[str, typer.Option("--name", help="Name of the registered model.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Workers = Annotated[int, typer.Option(help="Number of trials or decoders at a time; 0 means one per core.")]
GpuTrials = Annotated[int, typer.Option(help="Number of trials at a time on each GPU.")]
Runner = Annotated[str, typer.Option(help="Where trials run: threads, processes or dask (needs the extra dask).")]
Scheduler = Annotated[
    str, typer.Option(help="Address of a running Dask scheduler; by default Dask workers are started here.")
]
Threads = Annotated[int, typer.Option(help="Threads of the final training; 0 means one per core.")]
Processes = Annotated[
    int | None,
    typer.Option(
        help="Processes that share the final training (needs the extra distributed); by default one, or one per GPU.",
        show_default=False,
    ),
]
Refresh = Annotated[list[str], typer.Option(help="Stage to compute again, with all stages after it; repeatable.")]
Data = Annotated[
    list[str],
    typer.Option(
        **text("--data"),
        help="Folder or archive of UTKFace photographs, the URI of an archive, kaggle:OWNER/NAME, or sample; "
        "repeatable.",
    ),
]
Deploy = Annotated[bool, typer.Option("--deploy/--no-deploy", help="Whether to deploy it to the cameras.")]
VariantNames = Annotated[
    list[str],
    typer.Option(help="Variant of the preset, such as fifth of notebook; repeatable; all runs every variant."),
]

WORKSPACE, TRACKING, EXPERIMENT = "workspace", "sqlite:///mlruns/mlflow.db", "agepipe"


def runtime(**values: Any) -> "Runtime":
    """Build a `Runtime` from the options of a command.

    Raises:
        ConfigError: names the option that cannot be used.
    """
    from agepipe.config.base import checked
    from agepipe.config.runtime import Runtime

    return checked(Runtime, values, "option")
