"""The stage that says what the photographs are: counts, duplicates, conflicts, rejects."""

from agepipe.config.runtime import Where
from agepipe.config.stages import LabelSettings
from agepipe.data.records import Catalogue, DataReport
from agepipe.reports import audit_artifact
from tasks.stage import stage


@stage("audit", version=2)
def audit(catalogue: Catalogue, settings: LabelSettings, where: Where) -> DataReport:
    """Count what was found and draw the data report."""
    return audit_artifact.report(catalogue, settings, where)
