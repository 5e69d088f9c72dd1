"""The stage that turns a source into a checked catalogue, and the task that lists the source before."""

from prefect import task

from agepipe.config.runtime import Runtime
from agepipe.config.stages import IngestSettings, SourceSettings
from agepipe.data import sources
from agepipe.data.records import Catalogue, Source
from tasks import data
from tasks.stage import Stage
from tasks.watch import watch

catalogued = Stage(data.catalogued)


@task
def fingerprint(settings: SourceSettings, runtime: Runtime) -> Source:
    """List names, sizes and times of the files of a source. Fast, so never cached."""
    return sources.fingerprint(settings, runtime, watch("source"))


def ingest(source: Source, settings: IngestSettings, runtime: Runtime) -> Catalogue:
    """The catalogue of a source; fails if too many files are unusable."""
    return data.ingest(source, settings, runtime, catalogued)
