"""A bundle as the laptop preset makes it, but untrained: for measurements of time, which weights do not change."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agepipe.config import presets
from agepipe.model.bundle import NETWORK, Card
from agepipe.model.bundle_files import write_card
from agepipe.training import network
from agepipe.training.export import export
from agepipe.training.network import AgeNetwork

MEAN, STD = (0.598, 0.458, 0.391), (0.257, 0.229, 0.224)
"""Of UTKFace's training rows."""


def bundle(folder: Path, changes: Mapping[str, Any] | None = None, variant: str = "") -> AgeNetwork:
    """Write network and card into the folder; returns the network as torch runs it."""
    config = presets.load("laptop", changes, variant)
    torch.manual_seed(1)
    ranges, size = config.labels.age_ranges(), config.ingest.size
    made = network.build(config.learn, ranges, MEAN, STD).eval()
    folder.mkdir(parents=True, exist_ok=True)
    pictures = np.random.default_rng(1).integers(0, 256, (4, size, size, 3), dtype=np.uint8)
    export(made, pictures, folder / NETWORK)
    card = Card(
        ranges=ranges, size=size, input=config.learn.size, network=config.learn.network, mean=MEAN, std=STD,
        decoding="median", thresholds={90: 0.9}, rows="0" * 64, lineage="unknown",
    )  # fmt: skip
    write_card(folder, card)
    return made
