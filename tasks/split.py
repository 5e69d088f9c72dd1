"""The stage that splits off the test rows, before the first network exists."""

from prefect import task

from agepipe.config.runtime import Runtime
from agepipe.config.stages import Config, SplitSettings
from agepipe.data.records import Partition, Rows
from agepipe.registry import register
from tasks import data
from tasks.stage import Stage

split = Stage(data.split)


@task
def champions_partition(config: Config, runtime: Runtime) -> Partition | None:
    """The partition to extend: the champion's, if it has the same settings. Never cached."""
    if not config.split.extend:
        return None
    found = register.partition(config.release.model, runtime)
    return found if found is not None and found.settings == config.split else None


def partitioned(rows: Rows, settings: SplitSettings, earlier: Partition | None, runtime: Runtime) -> Partition:
    """The earlier partition if it is of the same rows, otherwise a partition that extends it."""
    same = earlier is not None and earlier.whole == rows.digest and earlier.intact()
    if earlier is not None and same and not runtime.refreshes("split"):
        return earlier
    return split(rows, settings, earlier, runtime)
