"""The stages from photographs to rows, as functions with cached results.

`agepipe audit`, studies and benchmarks call them without Prefect, which takes seconds to import.
"""

from collections.abc import Callable
from pathlib import Path

from agepipe.config.runtime import Runtime
from agepipe.config.stages import IngestSettings, LabelSettings, SplitSettings
from agepipe.data import ingest as ingesting
from agepipe.data import labels, sources
from agepipe.data import split as splitting
from agepipe.data.records import Catalogue, DataReport, Partition, Rows, Source
from agepipe.reports import audit_artifact
from tasks.cache import cached
from tasks.watch import watch


@cached("ingest", "datasets", version=ingesting.VERSION, resumes=True)
def catalogued(folder: Path, source: Source, settings: IngestSettings, runtime: Runtime) -> Catalogue:
    """Decode the photographs, drop exact copies, reject unusable files with a reason, and group duplicates."""
    sources.fetch(source, watch("source"))
    return ingesting.ingest(source, settings, folder, runtime, watch("ingest"))


def ingest(
    source: Source, settings: IngestSettings, runtime: Runtime,
    make: Callable[[Source, IngestSettings, Runtime], Catalogue] = catalogued,
) -> Catalogue:  # fmt: skip
    """The catalogue of a source; fails if too many files are unusable. The limit is not part of the cache key."""
    catalogue = make(source, ingesting.without_limit(settings), runtime)
    ingesting.check_share(catalogue, settings)
    return catalogue


@cached("audit", "audits", version=audit_artifact.VERSION)
def audit(folder: Path, catalogue: Catalogue, settings: LabelSettings, runtime: Runtime) -> DataReport:  # noqa: ARG001
    """Write the data report."""
    return audit_artifact.report(catalogue, settings, folder)


@cached("relabel", "labels", version=2)
def relabel(folder: Path, catalogue: Catalogue, settings: LabelSettings, runtime: Runtime) -> Rows:  # noqa: ARG001
    """Give each row the class of its age."""
    return labels.relabel(catalogue, settings, folder)


@cached("split", "splits", version=3)
def split(
    folder: Path, rows: Rows, settings: SplitSettings, earlier: Partition | None, runtime: Runtime  # noqa: ARG001
) -> Partition:  # fmt: skip
    """Split rows into development and test rows; rows of an earlier partition stay on their side."""
    return splitting.split(rows, settings, folder, None if earlier is None else earlier.members)
