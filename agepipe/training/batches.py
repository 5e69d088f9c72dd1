"""Batches from the memory-mapped pixel store, without decoding and without a Python loop over pictures."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agepipe.core.errors import ConfigError, DataError
from agepipe.training.job import Channels, Examples

BLOCK = 512
"""Pictures in a block of `Batches.blocks` and of a copy to the GPU; at 108 px a block takes 18 MB."""

GPU_SHARE = 0.5
"""Largest share of a GPU's free memory that the pictures may take to be copied to it once for the whole training."""


class Batch(NamedTuple):
    """Stored pictures, uint8 RGB `(n, s, s, 3)`, with classes, ages in years, genders and races, int64 `(n,)`."""

    images: Tensor
    labels: Tensor
    ages: Tensor
    genders: Tensor
    races: Tensor

    def with_labels_of(self, partner: Tensor) -> "Batch":
        """The same pictures, each with the labels of another row, whose index `partner` gives, int64 `(n,)`."""
        return Batch(self.images, *(column[partner] for column in self[1:]))

    def labels_of(self, rows: slice) -> "Batch":
        """The same pictures, with the labels of the rows of a slice."""
        return Batch(self.images, *(column[rows] for column in self[1:]))


class Batches:
    """Batches of some rows of the pixel store, on a device."""

    def __init__(self, pixels: NDArray[np.uint8], examples: Examples, size: int, device: torch.device) -> None:
        """Prepare the batches; on a GPU with enough memory, copy the pictures to it.

        Args:
            pixels: the pixel store, uint8 `(all, s, s, 3)`.
            examples: the rows.
            size: rows in a batch.
            device: device of the batches.

        Raises:
            DataError: the index of a row is outside the store.
            ConfigError: there are fewer rows than in a batch.
        """
        if len(examples) and int(examples.index.max()) >= len(pixels):
            raise DataError(f"pixels.npy holds {len(pixels)} pictures, but row {examples.index.max()} is requested.")
        if size > len(examples):
            raise ConfigError(f"learn.batch: {size}, but there are {len(examples)} training rows; take at most that.")
        self.size, self.device, self._pixels, self._index = size, device, pixels, examples.index
        columns = (examples.labels, examples.ages, examples.genders, examples.races)
        self._columns = [torch.from_numpy(column).to(device) for column in columns]
        self._resident = self._move() if self._fits() else None

    @classmethod
    def for_validation(cls, pixels: NDArray[np.uint8], examples: Examples, size: int, device: torch.device) -> Self:
        """As the constructor, but `size` may be larger than the number of rows."""
        return cls(pixels, examples, max(1, min(size, len(examples))), device)

    def __len__(self) -> int:
        """Full batches in an epoch."""
        return len(self._index) // self.size

    def shuffled(self, pictures: slice = slice(None)) -> Iterator[Batch]:
        """One epoch in random order, by torch's global random state; the last batch is dropped if it is not full.

        Args:
            pictures: rows of each batch whose pictures are read; its labels are always those of all rows.
        """
        order = torch.randperm(len(self._index))
        for start in range(0, len(self) * self.size, self.size):
            yield self._batch(order[start : start + self.size], pictures)

    def in_order(self, part: slice = slice(None)) -> Iterator[Batch]:
        """All rows, or those of a slice, in order; the last batch may be smaller."""
        order = torch.arange(len(self._index))[part]
        for start in range(0, len(order), self.size):
            yield self._batch(order[start : start + self.size])

    def _batch(self, positions: Tensor, pictures: slice = slice(None)) -> Batch:
        on_device = positions.to(self.device)
        return Batch(self._images(positions[pictures]), *(column[on_device] for column in self._columns))

    def _images(self, positions: Tensor) -> Tensor:
        if self._resident is not None:
            return self._resident[positions.to(self.device)]
        rows = self._index[positions.numpy()]
        ascending = np.argsort(rows)  # reads the file sequentially
        images = np.empty((len(rows), *self._pixels.shape[1:]), dtype=np.uint8)
        images[ascending] = self._pixels[rows[ascending]]
        return torch.from_numpy(images).to(self.device)

    def blocks(self, part: slice = slice(None)) -> Iterator[Tensor]:
        """All pictures in the order of the store, or a slice of them, in blocks, uint8 `(n, s, s, 3)` on the device."""
        rows = np.sort(self._index)[part]
        for start in range(0, len(rows), BLOCK):
            yield torch.from_numpy(self._pixels[rows[start : start + BLOCK]]).to(self.device)

    def _fits(self) -> bool:
        if self.device.type != "cuda":
            return False
        free, _ = torch.cuda.mem_get_info(self.device)
        return len(self._index) * int(np.prod(self._pixels.shape[1:])) <= GPU_SHARE * free

    def _move(self) -> Tensor:
        resident = torch.empty((len(self._index), *self._pixels.shape[1:]), dtype=torch.uint8, device=self.device)
        for start in range(0, len(self._index), BLOCK):
            rows = self._index[start : start + BLOCK]
            resident[start : start + len(rows)] = torch.from_numpy(self._pixels[rows]).to(self.device)
        return resident


def statistics(
    pictures: Iterable[Tensor], total: Callable[[Tensor], Tensor] = lambda sums: sums
) -> tuple[Channels, Channels]:
    """Mean and standard deviation of each channel, in [0, 1].

    The sums are integers: a float32 sum stops growing, and UTKFace would get a mean of 0.27 instead of 0.60. Integer
    sums are also the same on every device, and for any number of processes.

    Args:
        pictures: blocks of pictures, uint8 `(n, s, s, 3)`.
        total: returns the sum over processes of int64 sums, if each has only a part of the pictures.

    Raises:
        DataError: a channel has the same value in all pixels.
    """
    sums = torch.zeros((3, 3), dtype=torch.int64)  # of ones, levels and squares, a row each
    for block in pictures:
        levels = block.reshape(-1, 3)
        ones = torch.full((3,), len(levels), dtype=torch.int64)
        squares = levels.int().square_().sum(0, dtype=torch.int64)
        sums += torch.stack([ones, levels.sum(0, dtype=torch.int64).cpu(), squares.cpu()])
    count, firsts, seconds = total(sums).numpy()
    mean = firsts / count
    std = np.sqrt(np.maximum(seconds / count - mean**2, 0.0))
    if not (std > 0).all():
        raise DataError("pixels.npy: a channel has one value in all training pictures; check the source's photographs.")
    return _channels(mean / 255), _channels(std / 255)


def _channels(values: NDArray[np.float64]) -> Channels:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
