"""Import a network that was trained elsewhere as a bundle; its lineage is unknown.

This module does not import torch; the weights are read and exported in a process of their own.
"""

from pathlib import Path

import numpy as np

from agepipe.config.runtime import Runtime
from agepipe.config.stages import LearnSettings
from agepipe.core.artifacts import file_digest, read_manifest, whole, write_manifest
from agepipe.core.errors import ModelError
from agepipe.core.record import digest_of
from agepipe.model.ages import AgeRanges
from agepipe.model.bundle import NETWORK, WEIGHTS, Card, digest
from agepipe.model.bundle_files import write_card
from agepipe.model.records import Model
from agepipe.training.job import IMAGENET, Channels, Order
from agepipe.training.workdir import made_with
from agepipe.training.worker import isolated

VERSION = 1
"""Raise it when the same file and arguments give another bundle."""
MEAN, STD = IMAGENET
"""Default normalisation: networks that start from torchvision's weights usually have it."""
COMPARED = 8
"""Random pictures on which ONNX and torch are compared."""


def imported(
    path: Path, learn: LearnSettings, ranges: AgeRanges, order: Order, runtime: Runtime,
    mean: Channels = MEAN, std: Channels = STD,
) -> Model:  # fmt: skip
    """Make a bundle from a weights file, or return the one that was made before.

    Args:
        path: see `agepipe.training.import_weights.read`, as for the other arguments.
        learn: names the network and its input size.
        ranges: the age ranges of the outputs.
        order: order of the outputs.
        runtime: its workspace keeps the bundle.
        mean: mean of the normalisation, three channels in [0, 1].
        std: standard deviation of the normalisation, three channels in [0, 1].

    Raises:
        ConfigError: the network or the size is not known.
        ModelError: the file does not contain this network, or it cannot be exported.
    """
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file; give the state dict of a trained network.")
    key = digest_of("imported", VERSION, file_digest(path), learn, ranges, order, mean, std)
    folder = runtime.workspace / "models" / f"imported-{key[:10]}"
    if read_manifest(folder) is None:
        with whole(folder) as draft:
            isolated(_exporting, path, learn, ranges, order, mean, std, draft)
            write_card(draft, _card(path, learn, ranges, mean, std))
            write_manifest(draft, "import", learn, {"file": file_digest(path)}, {"digest": digest(draft)})
    return Model(digest=digest(folder), folder=folder, lineage="unknown")


def _exporting(
    path: Path, learn: LearnSettings, ranges: AgeRanges, order: Order, mean: Channels, std: Channels, folder: Path
) -> None:
    """Entry point of the import's process."""
    from agepipe.training import checkpoints
    from agepipe.training.export import export
    from agepipe.training.import_weights import read

    network = read(path, learn, ranges, order, mean, std)
    checkpoints.save(network.state_dict(), folder / WEIGHTS)
    shape = (COMPARED, learn.size, learn.size, 3)
    export(network, np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8), folder / NETWORK)


def _card(path: Path, learn: LearnSettings, ranges: AgeRanges, mean: Channels, std: Channels) -> Card:
    return Card(
        ranges=ranges, size=learn.size, input=learn.size, network=learn.network, mean=mean, std=std,
        rows="unknown", lineage="unknown", config={"imported": {"file": path.name, "sha256": file_digest(path)}},
        versions=made_with(),
    )  # fmt: skip
