"""The stage that turns ages into ranges."""

from agepipe.config import LabelSettings
from agepipe.data import relabel as work
from agepipe.records import Catalogue, Rows
from agepipe.where import Where
from tasks.stage import stage


@stage("relabel", version=2)
def relabel(catalogue: Catalogue, settings: LabelSettings, where: Where) -> Rows:
    """Give each row the class of its age."""
    return work.relabel(catalogue, settings, where)
