"""Settings of a training: the network, its objective, its optimizer and its augmentation."""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from agepipe.config.base import Seed, Settings, Side
from agepipe.config.torchvision_models import check_names
from agepipe.core.errors import ConfigError
from agepipe.model.decoding import Decoding

ONE_SIZE = ("vit_", "maxvit_")
"""Prefixes of networks that accept only one input size."""
INCEPTION = 75
"""Smallest input side of inception_v3, px."""


class AugmentSettings(Settings):
    """Augmentation of training batches; validation, test and camera pictures are not changed."""

    flip: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Probability of a mirror image."""
    shift: bool = True
    """Crop `learn.size` out of the stored picture at a random position; false crops the centre."""
    rotate: Annotated[float, Field(ge=0.0, le=45.0)] = 0.0
    """Largest rotation either way, degrees."""
    scale: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    """Largest change of scale either way, as a share."""
    brightness: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Largest change of brightness either way, as a share."""
    contrast: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Largest change of contrast either way, as a share."""
    grey: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Probability of a grey picture."""
    erase: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Probability that a random rectangle is erased."""
    blur: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Probability that a picture is shrunk and enlarged again, as with a poor or distant camera."""
    jpeg: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Probability that a picture goes through JPEG-like compression, of a quality drawn between 10 and 75."""
    mix: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Mix each picture with one of about the same age (C-Mixup); parameter of the beta distribution, 0 disables it."""


class LearnSettings(Settings):
    """Settings that every trial and the final training share: network, objective and optimizer."""

    network: str = "shufflenet_v2_x0_5"
    """A classifier of torchvision by name, or one of timm as `timm/NAME`, that ends in a linear layer, or
    `face_resnet`, whose pretrained weights recognise faces; `face_resnet_bn` is made to begin with random ones."""
    weights: str = "none"
    """`none` for random weights, `pretrained` for the network's own, a name of torchvision's such as `IMAGENET1K_V1`, a
    local file, or a registered version such as `models:/agepipe@champion`. With pretrained weights, pictures are
    normalised as in the pretraining, otherwise by mean and standard deviation of the training rows."""
    head: Literal["linear", "v1", "v2", "v3"] = "linear"
    """What replaces the classifier; v1, v2 and v3 are the notebook's (see `agepipe.training.network`)."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Dropout before (and, in v1 to v3, inside) the head."""
    size: Side = 96
    """Side of the network's input in px; at most `ingest.size`."""
    sizes: tuple[Side, ...] = ()
    """Progressive resizing: sides in px, ascending and ending with `size`, each for an equal part of the epochs; empty
    trains at `size` throughout. The network is always evaluated and exported at `size`."""
    target: Literal["ranges", "ordinal", "years"] = "ranges"
    """Training target: the range (`ranges`); a distribution over ranges that falls with the distance from the true one
    (`ordinal`); or a distribution over single years, which is summed into ranges (`years`)."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the target spread over all classes (`target = "ranges"`)."""
    class_weights: bool = False
    """Weight each row by the inverse frequency of its range in the training rows."""
    years_loss: Annotated[float, Field(ge=0.0, le=10.0)] = 0.1
    """Weight of the absolute error of the expected age in the loss (`target = "years"`)."""
    helpers: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Weight in the loss of two auxiliary heads, for gender and race, which are not exported; 0 disables them."""
    optimizer: Literal["sgd", "adamw"] = "adamw"
    """The optimizer."""
    lr: Annotated[float, Field(gt=0.0, le=10.0)] = 2e-3
    """Largest learning rate."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Learning rate of each block as a share of the next block's rate; the head has the full `lr`."""
    clip: Annotated[float, Field(ge=0.0, le=1000.0)] = 0.0
    """Maximum norm of a step's gradient; larger gradients are clipped to it; 0 disables clipping."""
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Momentum of SGD; first beta of AdamW."""
    nesterov: bool = False
    """Nesterov momentum (`optimizer = "sgd"`)."""
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Weight decay."""
    l1: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Weight of the L1 norm of the parameters in the loss."""
    schedule: Literal["constant", "one-cycle", "cosine"] = "one-cycle"
    """Schedule of the learning rate."""
    batch: Annotated[int, Field(ge=2, le=4096)] = 64
    """Rows in a batch; must not exceed the training rows."""
    epochs: Annotated[int, Field(ge=1, le=2000)] = 8
    """Epochs of a trial; `final.epochs` is for the final training."""
    average: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Decay per step of the exponential moving average of the weights; 0 disables averaging."""
    decoding: Decoding = "likeliest"
    """How the range is chosen: the most probable one (`likeliest`), or the `median`, with the smallest expected error
    in ranges."""
    mirror: bool = False
    """Average the prediction over the photograph and its mirror image."""
    augment: AugmentSettings = AugmentSettings()
    """Augmentation of the training batches."""
    seed: Seed = 1
    """Seed of the initial weights, the order of rows and the augmentation."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_names(self.network, self.weights)
        self._check_sizes()
        self._check_network()
        self._check_effects()
        return self

    def check_epochs(self, epochs: int, field: str) -> None:
        """Refuse a training with fewer epochs than it has sizes to go through.

        Args:
            epochs: of the training, which `final.epochs` may decide.
            field: which field or option that is.

        Raises:
            ConfigError: names the field that has the epochs.
        """
        if len(self.sizes) > epochs:
            raise ConfigError(
                f"learn.sizes: {list(self.sizes)} are {len(self.sizes)} sizes, but {field} is {epochs}, and each size "
                "needs an epoch at least; take fewer sizes or more epochs."
            )

    def _check_sizes(self) -> None:
        sizes = list(self.sizes)
        if any(later <= earlier for earlier, later in pairwise(sizes)):
            raise ConfigError(f"learn.sizes: {sizes} must rise; put the smallest first, and each once.")
        if sizes and sizes[-1] != self.size:
            raise ConfigError(
                f"learn.sizes: {sizes} must end with learn.size, which is {self.size}; add it, or change it."
            )
        if len(sizes) == 1:
            raise ConfigError(
                f"learn.sizes: {sizes} does nothing beside learn.size; put a smaller one first, or leave out."
            )
        if sizes and self.network.startswith(ONE_SIZE):
            raise ConfigError(f"learn.sizes: {sizes}, but {self.network} takes pictures of one size alone; leave out.")

    def _check_network(self) -> None:
        least = min((self.size, *self.sizes))
        if self.network == "inception_v3" and least < INCEPTION:
            field = "learn.sizes" if least < self.size else "learn.size"
            raise ConfigError(f"{field}: {least} px, but inception_v3 needs at least {INCEPTION}.")
        if self.network.startswith("vit_") and self.size % (patch := int(self.network.rsplit("_", 1)[1])):
            raise ConfigError(f"learn.size: {self.size} px, but {self.network} needs a multiple of {patch}.")

    def _check_effects(self) -> None:
        """Refuse settings that would have no effect with the other settings."""
        idle = {
            "nesterov": (self.optimizer != "sgd", 'learn.optimizer = "sgd"'),
            "label_smoothing": (self.target != "ranges", 'learn.target = "ranges"'),
            "years_loss": (self.target != "years", 'learn.target = "years"'),
        }
        for field, (without_effect, needed) in idle.items():
            if without_effect and self.differs(field):
                raise ConfigError(
                    f"learn.{field}: {getattr(self, field)} does nothing without {needed}; set that, or leave it out."
                )
        if self.nesterov and self.momentum == 0:
            raise ConfigError("learn.nesterov: true, but learn.momentum is 0; give a momentum or leave nesterov out.")
