"""Clean-up at the start of a flow: remove unfinished files of killed commands and end their MLflow runs."""

from agepipe.config.runtime import Runtime
from agepipe.core import artifacts
from agepipe.registry import tracking


def tidy(runtime: Runtime) -> None:
    """Remove abandoned drafts and end MLflow runs whose process has died; those of living processes stay.

    Raises:
        TrackingError: the store cannot be used.
    """
    tracking.prepare(runtime)
    tracking.sweep(runtime)
    artifacts.sweep(runtime.workspace)
