"""What the flows add to the runtime that a user chose; in no form and no schema."""

from agepipe.config.runtime import Runtime


class Context(Runtime):
    """The runtime inside a pipeline."""

    parent: str
    """MLflow run of the pipeline, under which the runs of its stages are nested."""


def parent_of(runtime: Runtime) -> str | None:
    """MLflow run to nest a stage's run under; None for a stage that runs outside a pipeline."""
    return runtime.parent if isinstance(runtime, Context) else None
