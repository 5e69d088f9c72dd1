"""The record of an exported model."""

from pathlib import Path
from typing import Literal

from agepipe.core.record import Made


class Model(Made):
    """A trained network, exported; the digest is over the network file and the card."""

    folder: Path
    """The bundle: `model.onnx`, `card.json`, `lineage.parquet`, `curves.parquet`; see `agepipe.model.bundle`."""
    lineage: Literal["known", "unknown"] = "known"
    metrics: dict[str, float] = {}
    """Validation figures of the chosen epoch."""
    epochs: int = 0
    seconds: float = 0.0
