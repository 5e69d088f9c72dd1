"""The bundle: a folder with all that serving and evaluating a trained network needs, without pickle.

- model.onnx       images uint8 [N, size, size, 3] RGB in; probabilities [N, classes] and years [N] out
- card.json        description of the network: ranges in class order, sizes, statistics, settings, versions
- lineage.parquet  every photograph that it has seen, by content digest and perceptual hash, with its role
- curves.parquet   one row an epoch
"""

import hashlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agepipe.core.errors import ConfigError, ModelError
from agepipe.model.ages import AgeRanges
from agepipe.model.decoding import DEFAULT_LEVEL, Decoding, Rule, sets

NETWORK = "model.onnx"
CARD = "card.json"
LINEAGE = "lineage.parquet"
CURVES = "curves.parquet"
WEIGHTS = "network.pt"
"""State dict for a warm start: `learn.weights` may name it; the lineage is read with it. Serving does not use it."""

Calibrated = Literal["", "validation rows", "out-of-fold predictions"]
"""The predictions that temperature and thresholds were fitted on; empty if nothing was calibrated."""


class Card(BaseModel):
    """Description of a network; the order of the ranges is the order of the columns of `probabilities`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ranges: AgeRanges
    size: int = Field(ge=1)
    """Side of the pictures that the exported network takes, px: that of the pixel store."""
    input: int = Field(ge=1)
    """Side of the network's own input, px; the export crops it out of the picture."""
    network: str
    mean: tuple[float, float, float]
    """Mean of the training pixels per channel, in [0, 1]; applied inside the export."""
    std: tuple[float, float, float]
    """Standard deviation of the training pixels per channel, in [0, 1]; applied inside the export."""
    temperature: float = Field(default=1.0, gt=0.0)
    """Divisor of the logits of the ranges before the softmax; applied inside the export."""
    decoding: Decoding = "likeliest"
    """How a range is chosen from the probabilities."""
    thresholds: dict[int, float] = {}
    """Thresholds of prediction sets by level in percent (`agepipe.model.calibration`); empty if not calibrated."""
    calibrated: Calibrated = ""
    """The predictions that temperature and thresholds were fitted on."""
    rows: str
    """Digest of the rows that the network was fitted on."""
    config: dict[str, Any] = {}
    """The `learn` and `final` settings and the `precision` that it was trained with, as JSON values."""
    lineage: Literal["known", "unknown"] = "known"
    versions: dict[str, str] = {}
    """Versions of the packages that trained and exported it."""

    @property
    def rule(self) -> Rule:
        """How a range and the 90 % set are chosen."""
        return Rule(self.decoding, self.thresholds.get(DEFAULT_LEVEL))

    def spans(self, probabilities: NDArray[np.floating]) -> list[tuple[int | None, int | None]]:
        """First and last year of each row's 90 % set, from `(n, classes)`.

        The last is None for an open range; both are None if nothing was calibrated.
        """
        decoding, threshold = self.rule
        if threshold is None:
            return [(None, None)] * len(probabilities)
        ends = zip(*sets(probabilities, threshold, decoding), strict=True)
        return [self.ranges.span(int(first), int(last)) for first, last in ends]


def read_card(folder: Path) -> Card:
    """The card of a bundle.

    Raises:
        ModelError: there is no card, it cannot be read, or its ranges are not in order of age.
    """
    path = folder / CARD
    try:
        return Card.model_validate_json(_bytes(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ModelError(f"{path}: {field}: {first['msg']}; export the model again.") from error
    except ConfigError as error:
        raise ModelError(f"{path}: the class order cannot be trusted ({error}) Export the model again.") from error


def digest(folder: Path) -> str:
    """SHA-256, hex, over network file and card: the digest of the `Model`, independent of its folder.

    Raises:
        ModelError: one of the two files is missing.
    """
    whole = hashlib.sha256()
    for name in (NETWORK, CARD):
        content = _bytes(folder / name)
        whole.update(len(content).to_bytes(8, "little") + content)
    return whole.hexdigest()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); give the folder of an exported model.") from error
