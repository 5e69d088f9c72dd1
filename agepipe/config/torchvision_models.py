"""The names of torchvision's networks and pretrained weights, without importing it.

Importing torchvision takes seconds, and a wrong name must be refused before any work. A test compares this table
with the installed torchvision.
"""

import difflib
from collections.abc import Iterable
from pathlib import Path

from agepipe.config.pretrained import FACE_RESNET, FACE_RESNET_BN, PRETRAINED, is_timm
from agepipe.core.errors import ConfigError

_BY_WEIGHTS = {
    "IMAGENET1K_V1": """
        alexnet convnext_base convnext_large convnext_small convnext_tiny densenet121 densenet161
        densenet169 densenet201 efficientnet_b0 efficientnet_b2 efficientnet_b3 efficientnet_b4
        efficientnet_b5 efficientnet_b6 efficientnet_b7 efficientnet_v2_l efficientnet_v2_m
        efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3
        mobilenet_v3_small resnet18 resnet34 resnext101_64x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0
        shufflenet_v2_x1_5 shufflenet_v2_x2_0 swin_b swin_s swin_t swin_v2_b swin_v2_s swin_v2_t vgg11
        vgg11_bn vgg13 vgg13_bn vgg16_bn vgg19 vgg19_bn vit_b_32 vit_l_32
    """,
    "IMAGENET1K_V1 IMAGENET1K_V2": """
        efficientnet_b1 mobilenet_v2 mobilenet_v3_large regnet_x_16gf regnet_x_1_6gf regnet_x_32gf
        regnet_x_3_2gf regnet_x_400mf regnet_x_800mf regnet_x_8gf regnet_y_1_6gf regnet_y_3_2gf
        regnet_y_400mf regnet_y_800mf regnet_y_8gf resnet101 resnet152 resnet50 resnext101_32x8d
        resnext50_32x4d wide_resnet101_2 wide_resnet50_2
    """,
    "IMAGENET1K_SWAG_E2E_V1 IMAGENET1K_SWAG_LINEAR_V1": """
        regnet_y_128gf vit_h_14
    """,
    "IMAGENET1K_V1 IMAGENET1K_V2 IMAGENET1K_SWAG_E2E_V1 IMAGENET1K_SWAG_LINEAR_V1": """
        regnet_y_16gf regnet_y_32gf
    """,
    "IMAGENET1K_V1 IMAGENET1K_FEATURES": """
        vgg16
    """,
    "IMAGENET1K_V1 IMAGENET1K_SWAG_E2E_V1 IMAGENET1K_SWAG_LINEAR_V1": """
        vit_b_16 vit_l_16
    """,
}

NETWORKS: dict[str, tuple[str, ...]] = {
    network: tuple(weights.split()) for weights, networks in _BY_WEIGHTS.items() for network in networks.split()
}
"""Each classifier that ends in a linear layer (all but SqueezeNet), and the names of its pretrained weights."""

_FACE_RESNETS = (FACE_RESNET, FACE_RESNET_BN)

_WEIGHTS = frozenset(("none", PRETRAINED, *(name for names in NETWORKS.values() for name in names)))
"""Values of `learn.weights` that are never read as the name of a file."""

VERSIONS = "models:/"
"""Prefix of a registered version's name; a pipeline replaces the name by the version's weights file."""


def check_names(network: str, weights: str) -> None:
    """Refuse a network that is not known, and a name of weights that this network does not have.

    `agepipe.training.timm_models` checks networks of timm, since it has to import timm. Weights with a folder or a
    suffix in their name are a file or a registered version; see `check_file`. So is any other name that a file in the
    working folder has.

    Raises:
        ConfigError: names the nearest one.
    """
    if network not in NETWORKS and network not in _FACE_RESNETS and not is_timm(network):
        nearest = _nearest(network, (*NETWORKS, *_FACE_RESNETS))
        raise ConfigError(f"learn.network: '{network}' is not known; the nearest is '{nearest}'.")
    known = ("none",) if network == FACE_RESNET_BN else ("none", PRETRAINED, *NETWORKS.get(network, ()))
    if weights not in known and not _is_path(weights) and not is_file(weights):
        raise ConfigError(
            f"learn.weights: '{weights}' is neither a file nor known for {network}; the nearest is "
            f"'{_nearest(weights, known)}'."
        )


def check_file(weights: str) -> None:
    """Refuse the path of weights where there is no file.

    Raises:
        ConfigError: names the path.
    """
    if _is_path(weights) and not is_file(weights) and not is_version(weights):
        raise ConfigError(
            f"learn.weights: there is no file '{weights}'; give the path of a state dict, or {VERSIONS}NAME@ALIAS."
        )


def _is_path(weights: str) -> bool:
    return Path(weights).name != weights or Path(weights).suffix != ""


def is_file(weights: str) -> bool:
    """Whether the weights are a file on this machine; a file named as known weights are needs its folder, `./none`."""
    return weights not in _WEIGHTS and Path(weights).is_file()


def is_version(weights: str) -> bool:
    """Whether the weights are those of a registered version."""
    return weights.startswith(VERSIONS)


def _nearest(name: str, known: Iterable[str]) -> str:
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]
