"""The stage that says what the photographs are: counts, duplicates, conflicts, rejects."""

from agepipe.config import LabelSettings
from agepipe.data import audited
from agepipe.records import Catalogue, DataReport
from agepipe.where import Where
from tasks.stage import stage


@stage("audit", version=2)
def audit(catalogue: Catalogue, settings: LabelSettings, where: Where) -> DataReport:
    """Count what was found and draw the data report."""
    return audited.report(catalogue, settings, where)
