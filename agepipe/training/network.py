"""AgeNetwork: any torchvision classifier, with its preprocessing and its answer inside.

In go pictures as they lie in the pixel store, uint8 NHWC RGB; out come the probabilities of the ranges and an age
in years. Training, evaluation and the camera share this one path, so they cannot differ.
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
    """Levels 0 to 255, NHWC, to the network's input: one multiplication and one addition, then a view as NCHW.

    The view of NHWC memory is what torch calls channels_last; nothing is copied.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take the statistics of the training pixels, three channels each, in [0, 1].

        Raises:
            TrainingError: a value lies outside; nearly always the sums were taken in float32 or over levels.
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
        """Levels uint8 or float32 `(n, h, w, 3)` in [0, 255] to float32 `(n, 3, h, w)`."""
        return (levels.float() * self.scale).add_(self.shift).permute(0, 3, 1, 2)  # without a third copy


class Readout(nn.Module):
    """Logits to the probabilities of the ranges and an age in years.

    With `target = "years"` the logits are over single years; their probabilities are summed into ranges by a fixed
    matrix, and the age is the median of the distribution, interpolated inside its year (it beats the mean by 0.1
    year on UTKFace). With `target = "ranges"` the age is the mean of the mid ages by probability.

    A `temperature` other than 1 makes the ranges' probabilities more or less sure; it moves neither years nor the
    likeliest range.
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
        """How many logits the network must give."""
        return len(self.values)

    def expected(self, distribution: Tensor) -> Tensor:
        """Mean age in years, `(n,)`, of probabilities `(n, outputs)`; has a gradient everywhere."""
        return distribution @ self.values

    def forward(self, distribution: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities `(n, outputs)` to those of the ranges, `(n, classes)`, and years `(n,)`."""
        years = self._median(distribution) if self.by_year else self.expected(distribution)
        probabilities = distribution @ self.sums
        if self.temperature != 1.0:
            probabilities = (probabilities.clamp(min=TINY).log() / self.temperature).softmax(1)
        return probabilities, years

    def _median(self, distribution: Tensor) -> Tensor:
        # year y stands for ages y - 0.5 to y + 0.5, so that a distribution on one year has its median there
        below = distribution.cumsum(1)
        place = (below < 0.5).sum(1, keepdim=True).clamp(max=self.outputs - 1)
        inside = distribution.gather(1, place).clamp(min=1e-6)
        share = (0.5 - (below.gather(1, place) - inside)) / inside
        return (self.values[place] - 0.5 + share.clamp(0.0, 1.0)).squeeze(1)


GENDERS, RACES = 2, 5
"""Classes of the two heads that help training (`learn.helpers`)."""


def single_years(ranges: AgeRanges) -> Tensor:
    """The years that have a class, int64 `(years,)`; an open last range ends with `OLDEST`."""
    last = ranges.oldest if ranges.oldest is not None else max(OLDEST, ranges.ranges[-1].low)
    return torch.arange(ranges.youngest, last + 1)


def _sums(ranges: AgeRanges, years: Tensor) -> Tensor:
    labels = torch.from_numpy(ranges.classes(years.numpy()))
    return nn.functional.one_hot(labels, len(ranges)).float()


class AgeNetwork(nn.Module):
    """Pictures in, probabilities of the ranges and years out; see the module's docstring."""

    def __init__(self, body: nn.Module, normalise: Normalise, readout: Readout, size: int, mirror: bool) -> None:
        super().__init__()
        self.body, self.normalise, self.readout = body, normalise, readout
        self.size, self.mirror = size, mirror

    def everything(self, levels: Tensor) -> Tensor:
        """As `logits`, with those of gender and race behind them where training has these heads."""
        logits: Tensor = self.body(self.normalise(levels))
        return logits.float()

    def logits(self, levels: Tensor) -> Tensor:
        """Levels uint8 or float32 `(n, size, size, 3)` in [0, 255], already cropped, to float32 `(n, outputs)`."""
        return self.everything(levels)[:, : self.readout.outputs]

    def distribution(self, images: Tensor) -> Tensor:
        """Stored pictures, uint8 `(n, s, s, 3)` RGB, to probabilities of the readout's values, `(n, outputs)`."""
        levels = centre(images, self.size)
        if not self.mirror:
            return self.logits(levels).softmax(1)
        both = self.logits(torch.cat([levels, levels.flip(2)])).softmax(1)
        return both.reshape(2, -1, self.readout.outputs).mean(0)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Stored pictures, uint8 `(n, s, s, 3)` RGB, to probabilities `(n, classes)` and years `(n,)`, float32."""
        probabilities, years = self.readout(self.distribution(images))
        return probabilities, years


def centre(images: Tensor, size: int) -> Tensor:
    """The middle `(n, size, size, 3)` of pictures `(n, s, s, 3)`.

    Raises:
        TrainingError: the pictures are smaller.
    """
    stored = images.shape[1]
    if stored < size:
        raise TrainingError(f"learn.size: {size} px, but the stored pictures have {stored}; take at most that.")
    start = (stored - size) // 2
    return images[:, start : start + size, start : start + size]


def build(learn: LearnSettings, ranges: AgeRanges, mean: Sequence[float], std: Sequence[float]) -> AgeNetwork:
    """A fresh network; random weights are drawn from torch's global random state, and from nothing else.

    Raises:
        ConfigError: the network or its weights are not known.
        ModelError: a weights file cannot be used, or weights cannot be downloaded.
        TrainingError: mean or deviation do not lie between 0 and 1.
    """
    readout = Readout(ranges, by_year=learn.target == "years")
    body = backbone(learn, readout.outputs + (GENDERS + RACES if learn.helpers > 0 else 0))
    network = AgeNetwork(body, Normalise(mean, std), readout, learn.size, learn.mirror)
    # measured on two cores: 1.6 times the training speed of NCHW for shufflenet_v2_x0_5 at 64 px
    return network.to(memory_format=torch.channels_last)
