"""What training minimises, term by term; every term that a setting names reaches the gradient."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from agepipe.config.stages import LearnSettings
from agepipe.model.ages import AgeRanges
from agepipe.training.network import GENDERS, AgeNetwork, Readout, single_years

log = logging.getLogger(__name__)


class Objective(nn.Module):
    """Cross-entropy to the ranges or to a soft target over them or over single years, row weights, years' error, L1.

    The soft target over ranges is that of `ordinal_targets`. The one over single years is a normal distribution around
    the age, with a deviation of 2 + 0.03 × age years: apparent ages are noisy, the more so the older the face. A row's
    weight is the inverse frequency of its range, scaled so that the mean over the training rows is 1.
    """

    weights: Tensor
    targets: Tensor

    def __init__(self, learn: LearnSettings, ranges: AgeRanges, readout: Readout, labels: Tensor) -> None:
        """Take the settings, and the classes of all training rows, int64 `(n,)`."""
        super().__init__()
        self.learn, self.readout, self.warned = learn, readout, False
        years = single_years(ranges)
        self.youngest, self.oldest = int(years[0]), int(years[-1])
        ordinal = learn.target == "ordinal"
        self.register_buffer("targets", ordinal_targets(len(ranges)) if ordinal else soft_targets(years))
        weights = inverse_frequency(labels, len(ranges)) if learn.class_weights else torch.ones(len(ranges))
        self.register_buffer("weights", weights)

    def forward(
        self, network: AgeNetwork, logits: Tensor, labels: Tensor, ages: Tensor, weight: float = 1.0
    ) -> Tensor:  # fmt: skip
        """The loss of a batch, or of a part of one, a scalar in nats.

        Args:
            network: whose parameters the L1 term is of.
            logits: float32 `(n, outputs)`.
            labels: classes, int64 `(n,)`.
            ages: years, int64 `(n,)`.
            weight: of what the data say, not of the L1 term; see `agepipe.training.distributed`.
        """
        rows = self.weights[labels] * self._cross_entropy(logits, labels, ages)
        loss = rows.mean()
        if self.learn.target == "years" and self.learn.years_loss > 0:
            error = (self.readout.expected(logits.softmax(1)) - ages).abs()
            loss = loss + self.learn.years_loss * (self.weights[labels] * error).mean()
        loss = weight * loss if weight != 1.0 else loss
        if self.learn.l1 > 0:
            penalty = self.learn.l1 * l1_norm(network)
            self._warn(penalty, loss)
            loss = loss + penalty
        return loss

    def helping(
        self, logits: Tensor, genders: Tensor, races: Tensor, counts: Sequence[Tensor] | None = None
    ) -> Tensor:  # fmt: skip
        """The loss of the heads for gender and race, a scalar in nats; rows that lack one do not count for it.

        Args:
            logits: float32 `(n, 7)`, gender's two and race's five.
            genders: int64 `(n,)`, -1 where not known.
            races: int64 `(n,)`, -1 where not known.
            counts: by what to divide each head's sum, where these rows are a part of a batch; else their `known`.
        """
        heads = ((logits[:, :GENDERS], genders), (logits[:, GENDERS:], races))
        # a sum over the known rows, since the mean of no rows is not a number
        sums = [functional.cross_entropy(*head, ignore_index=-1, reduction="sum") for head in heads]
        counts = known(genders, races) if counts is None else counts
        return self.learn.helpers * (sums[0] / counts[0] + sums[1] / counts[1])

    def _cross_entropy(self, logits: Tensor, labels: Tensor, ages: Tensor) -> Tensor:
        if self.learn.target == "years":
            place = ages.clamp(self.youngest, self.oldest) - self.youngest
            return functional.cross_entropy(logits, self.targets[place], reduction="none")
        if self.learn.target == "ordinal":
            return functional.cross_entropy(logits, self.targets[labels], reduction="none")
        return functional.cross_entropy(logits, labels, reduction="none", label_smoothing=self.learn.label_smoothing)

    def _warn(self, penalty: Tensor, loss: Tensor) -> None:
        if self.warned:
            return
        self.warned = True  # looked at once: each look waits for the device
        small, data = float(penalty.detach()), float(loss.detach())
        if small > data:
            log.warning(
                "learn.l1: the L1 term is %.3g and the loss of the data %.3g, so the network mostly learns to be "
                "small; take an l1 below %.1g.", small, data, 0.1 * self.learn.l1 * data / small,
            )  # fmt: skip


def known(*truths: Tensor) -> list[Tensor]:
    """How many rows have a label, at least 1, for each of some columns, int64 `(n,)` with -1 where there is none."""
    return [(truth >= 0).sum().clamp(min=1) for truth in truths]


def soft_targets(years: Tensor) -> Tensor:
    """One distribution over `years` for each of them, float32 `(years, years)`, rows summing to 1."""
    centre = years.double()[:, None]
    deviation = 2 + 0.03 * centre
    density = torch.exp(-((years.double()[None] - centre) ** 2) / (2 * deviation**2))
    return (density / density.sum(1, keepdim=True)).float()


def ordinal_targets(classes: int) -> Tensor:
    """One distribution over the ranges for each true one, float32 `(classes, classes)`, true ranges down.

    The mass falls with the distance in ranges: `softmax(-(t - k)²)` over the ranges `k` for the true range `t`, so that
    a neighbour gets 1/e of what the true range gets, which is 0.56 away from the ends (Díaz and Marathe, Soft Labels
    for Ordinal Regression, CVPR 2019, equation 1 with the squared distance).
    """
    place = torch.arange(classes, dtype=torch.float64)
    return (-((place[:, None] - place[None]) ** 2)).softmax(1).float()


def inverse_frequency(labels: Tensor, classes: int) -> Tensor:
    """A weight for each class, float32 `(classes,)`, with mean 1 over the rows; a class without rows gets 0."""
    counts = torch.bincount(labels, minlength=classes).double()
    present = counts > 0
    return torch.where(present, len(labels) / (present.sum() * counts.clamp(min=1)), 0.0).float()


def l1_norm(network: nn.Module) -> Tensor:
    """Sum of the absolute values of all trainable parameters; a scalar with a gradient."""
    return torch.stack([parameter.abs().sum() for parameter in network.parameters() if parameter.requires_grad]).sum()
