"""The loss of a training and its terms."""

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
    """Weighted cross-entropy, and optionally the L1 error of the expected age and an L1 penalty of the parameters.

    The target of the cross-entropy is the range, or a distribution over the ranges (`ordinal_targets`), or one over
    single years (`soft_targets`). With `learn.class_weights` the weight of a row is the inverse frequency of its range,
    scaled so that the mean over the training rows is 1.
    """

    weights: Tensor
    targets: Tensor

    def __init__(self, learn: LearnSettings, ranges: AgeRanges, readout: Readout, labels: Tensor) -> None:
        """Compute targets and class weights.

        Args:
            learn: the settings.
            ranges: the age ranges.
            readout: readout of the network.
            labels: classes of all training rows, int64 `(n,)`.
        """
        super().__init__()
        self.learn, self.readout, self.l1_checked = learn, readout, False
        years = single_years(ranges)
        self.youngest, self.oldest = int(years[0]), int(years[-1])
        ordinal = learn.target == "ordinal"
        self.register_buffer("targets", ordinal_targets(len(ranges)) if ordinal else soft_targets(years))
        weights = inverse_frequency(labels, len(ranges)) if learn.class_weights else torch.ones(len(ranges))
        self.register_buffer("weights", weights)

    def forward(
        self, network: AgeNetwork, logits: Tensor, labels: Tensor, ages: Tensor, weight: float = 1.0
    ) -> Tensor:  # fmt: skip
        """Compute the loss of a batch or of a shard, a scalar in nats.

        Args:
            network: network of whose parameters the L1 penalty is computed.
            logits: float32 `(n, outputs)`.
            labels: classes, int64 `(n,)`.
            ages: ages in years, int64 `(n,)`.
            weight: factor of all terms but the L1 penalty; see `agepipe.training.distributed`.
        """
        rows = self.weights[labels] * self._cross_entropy(logits, labels, ages)
        loss = rows.mean()
        if self.learn.target == "years" and self.learn.years_loss > 0:
            error = (self.readout.expected(logits.softmax(1)) - ages).abs()
            loss = loss + self.learn.years_loss * (self.weights[labels] * error).mean()
        loss = weight * loss if weight != 1.0 else loss
        if self.learn.l1 > 0:
            penalty = self.learn.l1 * l1_norm(network)
            self._check_l1(penalty, loss)
            loss = loss + penalty
        return loss

    def helper_loss(
        self, logits: Tensor, genders: Tensor, races: Tensor, divisors: Sequence[Tensor] | None = None
    ) -> Tensor:  # fmt: skip
        """Compute the loss of the auxiliary heads, a scalar in nats; rows without a label are ignored.

        Args:
            logits: float32 `(n, 7)`: two for gender, five for race.
            genders: int64 `(n,)`, -1 if unknown.
            races: int64 `(n,)`, -1 if unknown.
            divisors: divisors of the sums of both heads; None divides by the `known_counts` of these rows.
        """
        heads = ((logits[:, :GENDERS], genders), (logits[:, GENDERS:], races))
        # sums, because the mean over no rows is NaN
        sums = [functional.cross_entropy(*head, ignore_index=-1, reduction="sum") for head in heads]
        divisors = known_counts(genders, races) if divisors is None else divisors
        return self.learn.helpers * (sums[0] / divisors[0] + sums[1] / divisors[1])

    def _cross_entropy(self, logits: Tensor, labels: Tensor, ages: Tensor) -> Tensor:
        if self.learn.target == "years":
            index = ages.clamp(self.youngest, self.oldest) - self.youngest
            return functional.cross_entropy(logits, self.targets[index], reduction="none")
        if self.learn.target == "ordinal":
            return functional.cross_entropy(logits, self.targets[labels], reduction="none")
        return functional.cross_entropy(logits, labels, reduction="none", label_smoothing=self.learn.label_smoothing)

    def _check_l1(self, penalty: Tensor, loss: Tensor) -> None:
        if self.l1_checked:
            return
        self.l1_checked = True  # once, because each check waits for the device
        l1, data = float(penalty.detach()), float(loss.detach())
        if l1 > data:
            log.warning(
                "learn.l1: the L1 penalty is %.3g and the loss of the data %.3g, so the network mostly learns small "
                "weights; take an l1 below %.1g.", l1, data, 0.1 * self.learn.l1 * data / l1,
            )  # fmt: skip


def known_counts(*columns: Tensor) -> list[Tensor]:
    """The number of labels in each column, int64 `(n,)` with -1 for no label; at least 1, so that it can divide."""
    return [(column >= 0).sum().clamp(min=1) for column in columns]


def soft_targets(years: Tensor) -> Tensor:
    """For each age, a normal distribution over single years, with a standard deviation of 2 + 0.03 × age years.

    Apparent ages are noisy, and those of older faces more so.

    Args:
        years: the single years, int64 `(years,)`.

    Returns:
        Float32 `(years, years)`, a row for each age; rows sum to 1.
    """
    centre = years.double()[:, None]
    deviation = 2 + 0.03 * centre
    density = torch.exp(-((years.double()[None] - centre) ** 2) / (2 * deviation**2))
    return (density / density.sum(1, keepdim=True)).float()


def ordinal_targets(classes: int) -> Tensor:
    """For each true range, a distribution over the ranges, float32 `(classes, classes)`, a row for each true range.

    The distribution is `softmax(-(t - k)²)` over the ranges `k` for the true range `t`. So a neighbour gets 1/e of the
    probability of the true range, which is 0.56 except near the first and the last range (Díaz and Marathe, Soft Labels
    for Ordinal Regression, CVPR 2019, equation 1 with the squared distance).
    """
    index = torch.arange(classes, dtype=torch.float64)
    return (-((index[:, None] - index[None]) ** 2)).softmax(1).float()


def inverse_frequency(labels: Tensor, classes: int) -> Tensor:
    """The weight of each class, float32 `(classes,)`; the mean over the rows is 1, that of a class without rows 0."""
    counts = torch.bincount(labels, minlength=classes).double()
    present = counts > 0
    return torch.where(present, len(labels) / (present.sum() * counts.clamp(min=1)), 0.0).float()


def l1_norm(network: nn.Module) -> Tensor:
    """Sum of the absolute values of all trainable parameters, a differentiable scalar."""
    return torch.stack([parameter.abs().sum() for parameter in network.parameters() if parameter.requires_grad]).sum()
