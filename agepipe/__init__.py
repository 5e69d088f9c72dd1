"""agepipe: from UTKFace photographs to a registered age-range classifier, with numbers that are true.

This package holds all the work as plain functions over frozen records. It knows neither the flows nor the tasks
that call it, and importing it imports nothing heavy.
"""

__version__ = "0.1.0"
