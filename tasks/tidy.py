"""What is done before a flow works: what killed commands have left half-made is removed, and their runs are ended."""

from agepipe.config.runtime import Where
from agepipe.core import artifacts
from agepipe.registry import tracking


def tidy(where: Where) -> None:
    """Remove drafts that nobody fills, and end MLflow runs whose process is gone; those of living processes stay.

    Raises:
        TrackingError: the store cannot be used.
    """
    tracking.prepare(where)
    tracking.sweep(where)
    artifacts.sweep(where.workspace)
