"""Networks of timm by name (`timm/NAME`), their pretrained weights, and the normalisation of these."""

import difflib
from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from torch import nn

from agepipe.config.pretrained import PACKAGES, PRETRAINED, TIMM, packaged
from agepipe.config.stages import LearnSettings
from agepipe.core.errors import ConfigError, ModelError
from agepipe.training.job import Channels


def check_timm(learn: LearnSettings) -> None:
    """Refuse a network or weights that timm does not have, and an input size that the network does not accept.

    Raises:
        ConfigError: names the nearest network, or the network's error message for the size.
    """
    name = learn.network.removeprefix(TIMM)
    if not timm.is_model(name):
        known = timm.list_models() + timm.list_pretrained()
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise ConfigError(f"learn.network: '{learn.network}' is not known; the nearest is '{TIMM}{near}'.")
    if learn.weights == PRETRAINED and learn.network not in PACKAGES and not timm.is_model_pretrained(name):
        raise ConfigError(f"learn.weights: timm has no pretrained weights of {learn.network}; take 'none' or a file.")
    body = _built(learn)
    for side in (learn.size, *learn.sizes):
        try:
            with torch.inference_mode():
                body.eval()(torch.zeros(1, 3, side, side))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise ConfigError(f"learn.size: {learn.network} does not take {side} px: {error}") from error


def body_of(learn: LearnSettings) -> nn.Module:
    """Create a network with its pretrained weights, or with random ones if `learn.weights` is `none` or a file.

    Raises:
        ConfigError: timm cannot build the network.
        ModelError: the pretrained weights cannot be read or downloaded.
    """
    if learn.weights != PRETRAINED:
        return _built(learn)
    file = packaged(learn.network)
    if file is None:
        return _downloaded(learn)
    body = _built(learn)
    _fill(body, file)
    return body


def normalisation(network: str) -> tuple[Channels, Channels]:
    """Mean and standard deviation, in [0, 1], with which the pretrained weights of a network were trained.

    Raises:
        ModelError: timm does not know them.
    """
    config = timm.get_pretrained_cfg(network.removeprefix(TIMM))
    if config is None:
        raise ModelError(f"learn.weights: timm does not know the normalisation of {network}; take 'none' or a file.")
    return _channels(config.mean), _channels(config.std)


def _channels(values: Sequence[float]) -> Channels:
    red, green, blue = values
    return red, green, blue


def _built(learn: LearnSettings) -> nn.Module:
    try:
        return timm.create_model(learn.network.removeprefix(TIMM))
    except RuntimeError as error:
        raise ConfigError(f"learn.network: '{learn.network}' cannot be built: {error}") from error


def _downloaded(learn: LearnSettings) -> nn.Module:
    try:
        return timm.create_model(learn.network.removeprefix(TIMM), pretrained=True)
    except (OSError, RuntimeError) as error:  # the hub's errors are OSErrors, timm's own RuntimeErrors
        raise ModelError(
            f"learn.weights: those of {learn.network} could not be downloaded ({type(error).__name__}); go online, "
            f"give a file, or take one of {', '.join(PACKAGES)} with the extra 'pretrained'."
        ) from error


def _fill(body: nn.Module, path: Path) -> None:
    # the tensors in the packages have other names than timm's, but the same order
    given, own = list(torch.load(path, map_location="cpu", weights_only=True).values()), body.state_dict()
    if [one.shape for one in given] != [one.shape for one in own.values()]:
        raise ModelError(f"learn.weights: {path} does not hold this network; install its package again.")
    body.load_state_dict(dict(zip(own, given, strict=True)))
