"""What a Dask worker on another machine needs to compute a stage: paths and input files of its own machine."""

from collections.abc import Mapping
from typing import Any

from agepipe.config.runtime import Runtime
from agepipe.core.record import Record
from tasks.cache import runtime_of


def on_this_machine(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a stage with the paths of this machine; input files that only the bucket has are fetched.

    Nothing changes where the workspace is not a bucket, because its folder then has the same path on all machines.

    Raises:
        StorageError: the bucket cannot be used.
    """
    given = runtime_of(arguments.values())
    here = given.here()

    def moved(value: Any) -> Any:
        if isinstance(value, Runtime):
            return here
        if isinstance(value, Record):
            record = value.moved(given.workspace, here.workspace)
            here.mirror.fetch(record)
            return record
        return tuple(map(moved, value)) if isinstance(value, tuple) else value

    return dict(arguments) if here is given else {name: moved(value) for name, value in arguments.items()}
