"""The stage that turns ages into ranges."""

from tasks import data
from tasks.stage import Stage

relabel = Stage(data.relabel)
