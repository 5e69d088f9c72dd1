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
    """What Typer must know of an option or argument that is a path."""
    return {"parser": _filled(option, Path), "metavar": "PATH"}


def text(option: str) -> dict[str, Any]:
    """The same for one that names a source or a store."""
    return {"parser": _filled(option, str), "metavar": "TEXT"}


def _filled(option: str, kind: Callable[[Any], T]) -> Callable[[Any], T]:
    """Make a value what the command takes; an empty one, as an unset variable gives it, would be the current folder."""

    def made(value: Any) -> T:
        if value == "":
            raise ConfigError(f"{option}: '' is empty; name a file or folder ('.' is the current folder).")
        return kind(value)

    return made


Workspace = Annotated[
    Path,
    typer.Option(
        **path("--workspace"),
        envvar="AGEPIPE_WORKSPACE",
        help="Folder of data sets, checkpoints, bundles and evaluations.",
    ),
]
Tracking = Annotated[
    str,
    typer.Option(
        **text("--tracking"),
        envvar="AGEPIPE_TRACKING",
        help="MLflow tracking URI: a local SQLite file or a server's address.",
    ),
]
ModelName = Annotated[str, typer.Option("--name", help="Name of the registered model.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Workers = Annotated[int, typer.Option(help="Trials and decoders at a time; 0 takes one a core.")]
GpuTrials = Annotated[int, typer.Option(help="Trials at a time on each GPU.")]
Runner = Annotated[str, typer.Option(help="What trials run on: threads, processes or dask (extra dask).")]
Scheduler = Annotated[str, typer.Option(help="Address of a running Dask scheduler; empty starts workers here.")]
Threads = Annotated[int, typer.Option(help="Threads of the final training; 0 takes one a core.")]
Processes = Annotated[
    int | None,
    typer.Option(
        help="Processes that share the final training (extra distributed); one, or one a GPU.", show_default=False
    ),
]
Machines = Annotated[int, typer.Option(help="Machines that share the final training; the others run agepipe join.")]
Meet = Annotated[str, typer.Option(help="Where they find this machine, as HOST:PORT.")]
Refresh = Annotated[list[str], typer.Option(help="Compute this stage and all that follow anew; may be repeated.")]
Data = Annotated[
    list[str],
    typer.Option(
        **text("--data"), help="Folder or archive of UTKFace photographs, kaggle:OWNER/NAME, or sample; repeatable."
    ),
]
Deploy = Annotated[bool, typer.Option("--deploy/--no-deploy", help="Whether cameras change over to it.")]
VariantNames = Annotated[
    list[str], typer.Option(help="Variant of the preset, such as fifth for notebook; repeatable; all runs every one.")
]

WORKSPACE, TRACKING = Path("workspace"), "sqlite:///mlruns/mlflow.db"


def runtime(**values: Any) -> "Runtime":
    """The `Runtime` of a command's options.

    Raises:
        ConfigError: names the option that cannot be used.
    """
    from agepipe.config.base import checked
    from agepipe.config.runtime import Runtime

    return checked(Runtime, values, "option")
