"""AgeNetwork: a classifier of torchvision or timm together with its preprocessing and postprocessing.

The input is a batch of stored pictures, uint8 NHWC RGB, the output the probabilities of the age ranges and an age in
years. Training, evaluation and camera use the same module, so their preprocessing cannot differ.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from agepipe.config.stages import LearnSettings
from agepipe.core.errors import TrainingError
from agepipe.model.ages import OLDEST, AgeRanges
from agepipe.model.calibration import TINY
from agepipe.training.backbones import backbone


class Normalise(nn.Module):
    """Normalise levels by one multiplication and one addition, and permute NHWC to NCHW.

    The permuted view of NHWC memory is in torch's `channels_last` format, so nothing is copied.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Derive scale and shift.

        Args:
            mean: mean of the training pixels, three channels, in [0, 1].
            std: their standard deviation, three channels, in [0, 1].

        Raises:
            TrainingError: a value is not between 0 and 1; usually it was computed over levels 0 to 255.
        """
        super().__init__()
        if not all(0.0 < value < 1.0 for value in (*mean, *std)):
            raise TrainingError(
                f"normalisation: mean {tuple(mean)} and deviation {tuple(std)} must lie between 0 and 1; "
                "take them over the training pixels divided by 255."
            )
        centre, spread = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
        self.register_buffer("scale", (1 / (255 * spread)).float())
        self.register_buffer("shift", (-centre / spread).float())

    def forward(self, levels: Tensor) -> Tensor:
        """Normalise levels, uint8 or float32 `(n, h, w, 3)` in [0, 255], to float32 `(n, 3, h, w)`."""
        return (levels.float() * self.scale).add_(self.shift).permute(0, 3, 1, 2)  # in place: saves a copy


class Readout(nn.Module):
    """Convert the network's probabilities to those of the ranges and to an age in years.

    With `target = "years"` the network's classes are single years; their probabilities are summed into ranges by a
    fixed matrix, and the age is the median of the distribution, interpolated inside its year. On UTKFace its error is
    0.1 year less than that of the mean. With other targets the classes are the ranges, and the age is the mean of their
    middle ages, weighted by probability.

    A `temperature` other than 1 makes the probabilities of the ranges more or less confident; it changes neither the
    age nor the most probable range.
    """

    values: Tensor
    sums: Tensor

    def __init__(self, ranges: AgeRanges, by_year: bool) -> None:
        super().__init__()
        self.ranges, self.by_year = ranges, by_year
        self.temperature = 1.0
        years = single_years(ranges)
        if by_year:
            self.register_buffer("values", years.float())
            self.register_buffer("sums", _sums(ranges, years))
        else:
            self.register_buffer("values", torch.from_numpy(ranges.mid_ages).float())
            self.register_buffer("sums", torch.eye(len(ranges)))

    @property
    def outputs(self) -> int:
        """Number of logits that the network must have."""
        return len(self.values)

    def expected(self, distribution: Tensor) -> Tensor:
        """Mean age in years, `(n,)`, of probabilities `(n, outputs)`; differentiable everywhere."""
        return distribution @ self.values

    def forward(self, distribution: Tensor) -> tuple[Tensor, Tensor]:
        """Convert probabilities `(n, outputs)` to those of the ranges, `(n, classes)`, and ages in years, `(n,)`."""
        years = self._median(distribution) if self.by_year else self.expected(distribution)
        probabilities = distribution @ self.sums
        if self.temperature != 1.0:
            probabilities = (probabilities.clamp(min=TINY).log() / self.temperature).softmax(1)
        return probabilities, years

    def _median(self, distribution: Tensor) -> Tensor:
        # year y covers ages from y - 0.5 to y + 0.5, so the median of a distribution on one year is that year
        below = distribution.cumsum(1)
        index = (below < 0.5).sum(1, keepdim=True).clamp(max=self.outputs - 1)
        inside = distribution.gather(1, index).clamp(min=1e-6)
        share = (0.5 - (below.gather(1, index) - inside)) / inside
        return (self.values[index] - 0.5 + share.clamp(0.0, 1.0)).squeeze(1)


GENDERS, RACES = 2, 5
"""Classes of the two auxiliary heads of a training with `learn.helpers`."""


def single_years(ranges: AgeRanges) -> Tensor:
    """The single years that are classes, int64 `(years,)`; an open-ended last range ends with `OLDEST`."""
    last = ranges.oldest if ranges.oldest is not None else max(OLDEST, ranges.ranges[-1].low)
    return torch.arange(ranges.youngest, last + 1)


def _sums(ranges: AgeRanges, years: Tensor) -> Tensor:
    labels = torch.from_numpy(ranges.classes(years.numpy()))
    return nn.functional.one_hot(labels, len(ranges)).float()


class AgeNetwork(nn.Module):
    """Predict the probabilities of the age ranges, and an age in years, from stored pictures."""

    def __init__(self, body: nn.Module, normalise: Normalise, readout: Readout, size: int, mirror: bool) -> None:
        super().__init__()
        self.body, self.normalise, self.readout = body, normalise, readout
        self.size, self.mirror = size, mirror

    def all_logits(self, levels: Tensor) -> Tensor:
        """As `logits`, followed by the logits of gender and race if the training has these heads."""
        logits: Tensor = self.body(self.normalise(levels))
        return logits.float()

    def logits(self, levels: Tensor) -> Tensor:
        """Logits, float32 `(n, outputs)`, of cropped levels, uint8 or float32 `(n, size, size, 3)` in [0, 255]."""
        return self.all_logits(levels)[:, : self.readout.outputs]

    def distribution(self, images: Tensor) -> Tensor:
        """Probabilities of the network's classes, `(n, outputs)`, of stored pictures, uint8 RGB `(n, s, s, 3)`."""
        levels = centre(images, self.size)
        if not self.mirror:
            return self.logits(levels).softmax(1)
        both = self.logits(torch.cat([levels, levels.flip(2)])).softmax(1)
        return both.reshape(2, -1, self.readout.outputs).mean(0)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Predict stored pictures.

        Args:
            images: uint8 RGB `(n, s, s, 3)`; `s` is at least `size`.

        Returns:
            The probabilities of the ranges, float32 `(n, classes)`, and ages in years, float32 `(n,)`.
        """
        probabilities, years = self.readout(self.distribution(images))
        return probabilities, years


def centre(images: Tensor, size: int) -> Tensor:
    """Crop the centre `(n, size, size, 3)` of pictures `(n, s, s, 3)`.

    Raises:
        TrainingError: the pictures are smaller.
    """
    stored = images.shape[1]
    if stored < size:
        raise TrainingError(f"learn.size: {size} px, but the stored pictures have {stored}; take at most that.")
    start = (stored - size) // 2
    return images[:, start : start + size, start : start + size]


def build(learn: LearnSettings, ranges: AgeRanges, mean: Sequence[float], std: Sequence[float]) -> AgeNetwork:
    """Create a network; its random weights depend on torch's global random state alone.

    Args:
        learn: network, weights, head and target.
        ranges: the age ranges.
        mean: mean of the training pixels, three channels, in [0, 1].
        std: their standard deviation, three channels, in [0, 1].

    Raises:
        ConfigError: the network or its weights are not known.
        ModelError: a weights file cannot be used, or weights cannot be downloaded.
        TrainingError: a mean or standard deviation is not between 0 and 1.
    """
    readout = Readout(ranges, by_year=learn.target == "years")
    body = backbone(learn, readout.outputs + (GENDERS + RACES if learn.helpers > 0 else 0))
    network = AgeNetwork(body, Normalise(mean, std), readout, learn.size, learn.mirror)
    # measured on two cores: 1.6 times the training speed of NCHW for shufflenet_v2_x0_5 at 64 px
    return network.to(memory_format=torch.channels_last)
