"""Write and read the folder of a data report: the counts as JSON, and an HTML page."""

from pathlib import Path

from agepipe.config.stages import LabelSettings
from agepipe.core.record import digest_of
from agepipe.data.audit import Audit, audit
from agepipe.data.records import Catalogue, DataReport

VERSION = 3
"""Raise it when the same catalogue and labels give another report; part of the digest."""


def report(catalogue: Catalogue, labels: LabelSettings, folder: Path) -> DataReport:
    """Compute the counts of a catalogue, and write them and the page into an empty folder.

    Raises:
        DataError: the catalogue's table or pixel store is missing or damaged.
    """
    from agepipe.reports.data_report import render  # plotting takes a second to import

    found = audit(catalogue, labels)
    (folder / "data-report.html").write_text(render(found, catalogue), encoding="utf-8")
    (folder / "audit.json").write_text(found.model_dump_json(indent=2), encoding="utf-8")
    return DataReport(digest=digest_of("audit", VERSION, catalogue, labels), folder=folder)


def read(made: DataReport) -> Audit:
    """Read the counts of a report."""
    return Audit.model_validate_json(made.summary.read_text(encoding="utf-8"))
