"""A network that was trained elsewhere becomes a bundle, whose lineage is unknown: nobody can say what it has seen.

Nothing here imports torch; reading and exporting happen in a process of their own.
"""

from pathlib import Path

import numpy as np

from agepipe.ages import AgeRanges
from agepipe.artifact import file_digest, read_manifest, whole, write_manifest
from agepipe.config import LearnSettings
from agepipe.errors import ModelError
from agepipe.learn.check import check_learn
from agepipe.learn.job import Channels, Order
from agepipe.learn.process import isolated
from agepipe.learn.runs import made_with
from agepipe.record import digest_of
from agepipe.records import Model
from agepipe.serve.bundle import NETWORK, WEIGHTS, Card, digest, write_card
from agepipe.where import Where

VERSION = 1
"""Raised when the same file and answers would become another bundle."""
MEAN: Channels = (0.485, 0.456, 0.406)
"""What torchvision's weights were trained with, and networks that start from them usually are."""
STD: Channels = (0.229, 0.224, 0.225)
COMPARED = 8
"""Drawn pictures on which the exported network must agree with the one that was read."""


def imported(
    path: Path, learn: LearnSettings, ranges: AgeRanges, order: Order, where: Where,
    mean: Channels = MEAN, std: Channels = STD,
) -> Model:  # fmt: skip
    """Make a bundle of a file of weights, or find the finished one; for the arguments see `agepipe.learn.foreign.read`.

    Raises:
        ConfigError: the network or the size is not known.
        ModelError: the file does not hold this network, or cannot be exported.
    """
    check_learn(learn, learn.size)
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file; give the state dict of a trained network.")
    key = digest_of("imported", VERSION, file_digest(path), learn, ranges, order, mean, std)
    folder = where.workspace / "models" / f"imported-{key[:10]}"
    if read_manifest(folder) is None:
        with whole(folder) as draft:
            isolated(_exporting, path, learn, ranges, order, mean, std, draft)
            write_card(draft, _card(path, learn, ranges, mean, std))
            write_manifest(draft, "import", learn, {"file": file_digest(path)}, {"digest": digest(draft)})
    return Model(digest=digest(folder), folder=folder, lineage="unknown")


def _exporting(
    path: Path, learn: LearnSettings, ranges: AgeRanges, order: Order, mean: Channels, std: Channels, folder: Path
) -> None:
    """What the process of an import runs."""
    from agepipe.learn import checkpoint
    from agepipe.learn.export import export
    from agepipe.learn.foreign import read

    network = read(path, learn, ranges, order, mean, std)
    checkpoint.save(network.state_dict(), folder / WEIGHTS)
    shape = (COMPARED, learn.size, learn.size, 3)
    export(network, np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8), folder / NETWORK)


def _card(path: Path, learn: LearnSettings, ranges: AgeRanges, mean: Channels, std: Channels) -> Card:
    return Card(
        ranges=ranges, size=learn.size, input=learn.size, network=learn.network, mean=mean, std=std,
        rows="unknown", lineage="unknown", config={"imported": {"file": path.name, "sha256": file_digest(path)}},
        versions=made_with(),
    )  # fmt: skip
