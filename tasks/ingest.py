"""The stage that turns a source into a checked catalogue, and the look at the source that comes before it."""

from prefect import task

from agepipe.config.runtime import Where
from agepipe.config.stages import IngestSettings, SourceSettings
from agepipe.data import ingest as work
from agepipe.data import sources
from agepipe.data.records import Catalogue, Source
from tasks.stage import stage
from tasks.watch import watch


@task
def fingerprint(settings: SourceSettings, where: Where) -> Source:
    """Names, sizes and times of the files of a source: quick, so it is never cached."""
    return sources.fingerprint(settings, where, watch("source"))


@stage("ingest", version=2)
def ingest(source: Source, settings: IngestSettings, where: Where) -> Catalogue:
    """Decode every photograph, keep each once, reject what cannot be used with a reason, and group duplicates."""
    return work.ingest(source, settings, where, watch("ingest"))
