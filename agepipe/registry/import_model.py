"""Register a network that was trained elsewhere, from its weights and the user's description."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from agepipe.config.base import Settings, changed, checked
from agepipe.config.runtime import Runtime
from agepipe.config.stages import LearnSettings, ReleaseSettings
from agepipe.model.ages import AgeRanges, RangeSpec
from agepipe.registry import register
from agepipe.registry.records import Registered
from agepipe.training.import_bundle import MEAN, STD, imported
from agepipe.training.job import Order

Channel = Annotated[float, Field(gt=0.0, lt=1.0)]


def _parted(value: object) -> object:
    return tuple(value.split(",")) if isinstance(value, str) and value not in ("utkface", "years") else value


class Answers(Settings):
    """The description of a network that its file of weights does not contain."""

    network: str = "resnet50"
    """Name of the torchvision classifier."""
    size: Annotated[int, Field(ge=32, le=512)] = 200
    """Side of its input, px."""
    order: Order
    """`age` if the outputs are ordered by age, youngest first; `text` if they are ordered as the folders of an
    `ImageFolder` sort, which are named 0, 1, ... or by single years."""
    ranges: Annotated[RangeSpec, BeforeValidator(_parted)] = "utkface"
    """The age ranges of the outputs."""
    mean: Annotated[tuple[Channel, Channel, Channel], BeforeValidator(_parted)] = MEAN
    """Mean of the normalisation in training, per channel."""
    std: Annotated[tuple[Channel, Channel, Channel], BeforeValidator(_parted)] = STD
    """Standard deviation of the normalisation in training, per channel."""
    name: str = "agepipe"
    """Name of the registered model."""


def answers(given: Mapping[str, Any]) -> Answers:
    """Validate the user's description.

    Raises:
        ConfigError: names the field.
    """
    return checked(Answers, given, "option")


def adopt(path: Path, said: Answers, runtime: Runtime) -> Registered:
    """Export the file as a bundle and register it; it becomes a challenger, because its lineage is unknown.

    Raises:
        ConfigError: the network, the size or the ranges are not known.
        ModelError: the file does not contain this network.
    """
    learn = changed(LearnSettings(), {"network": said.network, "size": said.size}, "option")
    ranges = AgeRanges.of(said.ranges)
    model = imported(path, learn, ranges, said.order, runtime, said.mean, said.std)
    return register.register(model, None, ReleaseSettings(model=said.name), runtime)
