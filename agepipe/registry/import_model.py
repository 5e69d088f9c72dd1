"""Take a network that was trained elsewhere into the registry, by what its user says of it."""

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
    """What a file of weights does not say."""

    network: str = "resnet50"
    """Which torchvision classifier it is."""
    size: Annotated[int, Field(ge=32, le=512)] = 200
    """Side of its input, px."""
    order: Order
    """`age` when the outputs stand youngest first, `text` when as the folders of an `ImageFolder` sort, which are named
    0, 1, ... or by single years."""
    ranges: Annotated[RangeSpec, BeforeValidator(_parted)] = "utkface"
    """What the outputs stand for."""
    mean: Annotated[tuple[Channel, Channel, Channel], BeforeValidator(_parted)] = MEAN
    """By which its training normalised."""
    std: Annotated[tuple[Channel, Channel, Channel], BeforeValidator(_parted)] = STD
    """The same."""
    name: str = "agepipe"
    """Name of the registered model."""


def answers(given: Mapping[str, Any]) -> Answers:
    """What the user says, checked.

    Raises:
        ConfigError: names the field.
    """
    return checked(Answers, given, "option")


def adopt(path: Path, said: Answers, runtime: Runtime) -> Registered:
    """Make a bundle of the file and give it a version, which is a challenger whatever it is compared with.

    Raises:
        ConfigError: the network, the size or the ranges are not known.
        ModelError: the file does not hold this network.
    """
    learn = changed(LearnSettings(), {"network": said.network, "size": said.size}, "option")
    ranges = AgeRanges.of(said.ranges)
    model = imported(path, learn, ranges, said.order, runtime, said.mean, said.std)
    return register.register(model, None, ReleaseSettings(model=said.name), runtime)
