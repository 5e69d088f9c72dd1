"""What is done before a flow works: what killed commands have left half-made is removed, and their runs are ended."""

from agepipe.config.runtime import Runtime
from agepipe.core import artifacts
from agepipe.registry import tracking


def tidy(runtime: Runtime) -> None:
    """Remove drafts that nobody fills, and end MLflow runs whose process is gone; those of living processes stay.

    Raises:
        TrackingError: the store cannot be used.
    """
    tracking.prepare(runtime)
    tracking.sweep(runtime)
    artifacts.sweep(runtime.workspace)
