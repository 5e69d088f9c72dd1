"""agepipe: from UTKFace photographs to a registered, calibrated age-range classifier.

The names in `__all__` are the public interface; everything else may change between versions. They are imported on
first use (PEP 562), so that `import agepipe` imports nothing outside the standard library.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = [
    "AgeModel", "AgeRanges", "AgepipeError", "ConfigError", "DataError", "DetectorError", "DiedError", "DivergedError",
    "FaceAge", "ImageError", "LeakageError", "ModelError", "OutputError", "ServiceError", "SourceError",
    "StorageError", "TooManyRejectsError", "TrackingError", "TrainingError", "WorkerError", "__version__", "load",
]  # fmt: skip

if TYPE_CHECKING:
    from agepipe.core.errors import (  # noqa: I001 - one name a line would be long
        AgepipeError, ConfigError, DataError, DetectorError, DiedError, DivergedError, ImageError, LeakageError,
        ModelError, OutputError, ServiceError, SourceError, StorageError, TooManyRejectsError, TrackingError,
        TrainingError, WorkerError,
    )  # fmt: skip
    from agepipe.model.ages import AgeRanges
    from agepipe.serving.age_model import AgeModel, FaceAge, load
else:  # hidden from type checkers, which would otherwise accept every attribute of the package

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        modules = {"AgeRanges": "model.ages"} | dict.fromkeys(("AgeModel", "FaceAge", "load"), "serving.age_model")
        value = getattr(import_module(f"{__name__}.{modules.get(name, 'core.errors')}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


# ONNX Runtime reports to its maker unless this is set before its first import. Every import of ONNX Runtime by this
# package runs this line first, also in the copy inside a registered model; child processes inherit it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
