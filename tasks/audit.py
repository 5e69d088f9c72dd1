"""The stage that reports on the photographs: counts, duplicates, conflicting labels, rejects."""

from tasks import data
from tasks.stage import Stage

audit = Stage(data.audit)
