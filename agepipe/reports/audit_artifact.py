"""The data report as a result folder: the counts as JSON, and the page, found again by catalogue and labels."""

from agepipe.config.runtime import Where
from agepipe.config.stages import LabelSettings
from agepipe.core.artifacts import read_manifest, whole, write_manifest
from agepipe.core.record import digest_of
from agepipe.data.audit import Audit, audit
from agepipe.data.records import Catalogue, DataReport

VERSION = 2
"""Raised when the same catalogue and labels would be reported otherwise."""


def report(catalogue: Catalogue, labels: LabelSettings, where: Where) -> DataReport:
    """Count what the photographs are and draw the page; a finished report is found again.

    Raises:
        DataError: the catalogue's table or pixel store is missing or damaged.
    """
    digest = digest_of("audit", VERSION, catalogue, labels)
    folder = where.workspace / "audits" / f"{catalogue.name}-{digest[:10]}"
    if read_manifest(folder) is None:
        from agepipe.reports.data_report import write_report  # plotting takes a second to import

        found = audit(catalogue, labels)
        with whole(folder) as draft:
            write_report(found, catalogue, draft)
            (draft / "audit.json").write_text(found.model_dump_json(indent=2), encoding="utf-8")
            write_manifest(draft, "audit", labels, {"catalogue": catalogue.digest}, {"digest": digest})
    return DataReport(digest=digest, folder=folder)


def read(made: DataReport) -> Audit:
    """The counts of a report."""
    return Audit.model_validate_json(made.summary.read_text(encoding="utf-8"))
