"""The stage that says what the photographs are: counts, duplicates, conflicts, rejects."""

from tasks import data
from tasks.stage import Stage

audit = Stage(data.audit)
