"""agepipe: from UTKFace photographs to a registered age-range classifier, with numbers that are true.

This package holds all the work as plain functions over frozen records. It knows neither the flows nor the tasks
that call it, and importing it imports nothing heavy.
"""

import os

__version__ = "0.1.0"

# ONNX Runtime sends reports to its maker unless this is set before its first import. Whatever of this package imports
# it comes through here first, also where MLflow serves the copy that lies in a registered model; children inherit it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
