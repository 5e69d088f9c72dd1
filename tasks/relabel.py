"""The stage that turns ages into ranges."""

from agepipe.config.runtime import Where
from agepipe.config.stages import LabelSettings
from agepipe.data import labels as work
from agepipe.data.records import Catalogue, Rows
from tasks.stage import stage


@stage("relabel", version=2)
def relabel(catalogue: Catalogue, settings: LabelSettings, where: Where) -> Rows:
    """Give each row the class of its age."""
    return work.relabel(catalogue, settings, where)
