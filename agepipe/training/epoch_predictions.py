"""The predictions of an epoch, and their figures."""

import torch
from torch import Tensor

from agepipe.evaluation.metrics import Predictions, checked, figures
from agepipe.model.decoding import Decoding, decide
from agepipe.training.batches import Batch
from agepipe.training.distributed import Processes
from agepipe.training.network import AgeNetwork


class EpochPredictions:
    """Collects the predictions of an epoch's rows on the device, and computes their figures at its end."""

    def __init__(self, network: AgeNetwork, decoding: Decoding) -> None:
        self.network, self.decoding = network, decoding
        self._parts: list[tuple[Tensor, ...]] = []

    def add(self, batch: Batch, probabilities: Tensor, years: Tensor) -> None:
        """Add the probabilities of the ranges, `(n, classes)`, and the ages in years, `(n,)`, of a batch."""
        self._parts.append((batch.labels, probabilities.float(), batch.ages, years.float()))

    def gather(self, processes: Processes) -> None:
        """Add the predictions of the other processes, in the order of ranks."""
        self._parts = processes.all_gather(self._parts)

    @property
    def probabilities(self) -> Tensor:
        """Probabilities of the ranges of all rows, float32 `(n, classes)`, on the CPU."""
        return torch.cat([probabilities for _, probabilities, _, _ in self._parts]).cpu()

    def total(self) -> Tensor:
        """Sum of all probabilities and ages; not finite if one of them is not."""
        return torch.stack([probabilities.sum() + years.sum() for _, probabilities, _, years in self._parts]).sum()

    def labelled(self) -> Predictions:
        """Labels and predictions of all rows, each predicted age clipped to the predicted range."""
        labels, probabilities, ages, years = (
            torch.cat(column).cpu().numpy() for column in zip(*self._parts, strict=True)
        )
        clipped = self.network.readout.ranges.within(decide(probabilities, self.decoding), years)
        return checked(labels, probabilities, ages, clipped, self.decoding)

    def figures(self, prefix: str) -> dict[str, float]:
        """All figures of `agepipe.evaluation.metrics`, with a prefix."""
        return {prefix + name: value for name, value in figures(self.labelled()).items()}
