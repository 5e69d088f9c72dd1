"""Refuse sides of the network's input that cannot work, by field name, before any work is done."""

from itertools import pairwise

from agepipe.config.stages import LearnSettings
from agepipe.core.errors import ConfigError

ONE_SIZE = ("vit_", "maxvit_")
"""How the networks begin whose layers are laid out for one size of input."""
INCEPTION = 75
"""The least side that inception_v3 takes, px."""


def check_size(learn: LearnSettings, stored: int) -> None:
    """Refuse a size or sizes that the stored pictures or the network do not allow.

    Args:
        learn: `size`, `sizes` and `network`.
        stored: side of a stored picture, px.

    Raises:
        ConfigError: names the field, its value and what is allowed.
    """
    if learn.size > stored:
        raise ConfigError(
            f"learn.size: {learn.size} px, but ingest.size stores {stored}; take at most that, or store larger ones."
        )
    _check_sizes(learn)
    _check_network(learn)


def check_epochs(learn: LearnSettings, epochs: int, field: str) -> None:
    """Refuse a training with fewer epochs than it has sizes to go through.

    Raises:
        ConfigError: names the field that has the epochs.
    """
    if len(learn.sizes) > epochs:
        raise ConfigError(
            f"learn.sizes: {list(learn.sizes)} are {len(learn.sizes)} sizes, but {field} is {epochs}, and each size "
            "needs an epoch at least; take fewer sizes or more epochs."
        )


def _check_sizes(learn: LearnSettings) -> None:
    sizes = list(learn.sizes)
    if any(later <= earlier for earlier, later in pairwise(sizes)):
        raise ConfigError(f"learn.sizes: {sizes} must rise; put the smallest first, and each once.")
    if sizes and sizes[-1] != learn.size:
        raise ConfigError(
            f"learn.sizes: {sizes} must end with learn.size, which is {learn.size}; add it, or change it."
        )
    if len(sizes) == 1:
        raise ConfigError(
            f"learn.sizes: {sizes} does nothing beside learn.size; put a smaller one first, or leave out."
        )
    if sizes and learn.network.startswith(ONE_SIZE):
        raise ConfigError(f"learn.sizes: {sizes}, but {learn.network} takes pictures of one size alone; leave out.")


def _check_network(learn: LearnSettings) -> None:
    least = min((learn.size, *learn.sizes))
    if learn.network == "inception_v3" and least < INCEPTION:
        field = "learn.sizes" if least < learn.size else "learn.size"
        raise ConfigError(f"{field}: {least} px, but inception_v3 needs at least {INCEPTION}.")
    if learn.network.startswith("vit_") and learn.size % _patch(learn.network):
        raise ConfigError(
            f"learn.size: {learn.size} px, but {learn.network} needs a multiple of {_patch(learn.network)}."
        )


def _patch(network: str) -> int:
    return int(network.rsplit("_", 1)[1])
