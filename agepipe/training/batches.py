"""Batches out of the memory-mapped pixel store: no work per picture in Python, and nothing decoded."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agepipe.core.errors import ConfigError, DataError
from agepipe.training.job import Channels, Examples

BLOCK = 512
"""Pictures that are summed at a time for the statistics; bounds memory at some 30 MB for 108 px."""

GPU_SHARE = 0.5
"""The pictures move onto the GPU for good when they take at most this share of its free memory."""


class Batch(NamedTuple):
    """Pictures as they lie in the store, uint8 `(n, s, s, 3)`; classes, years, genders and races, int64 `(n,)`."""

    images: Tensor
    labels: Tensor
    ages: Tensor
    genders: Tensor
    races: Tensor

    def answering(self, places: Tensor) -> "Batch":
        """The same pictures with the answers of the rows at some places, int64 `(n,)`."""
        return Batch(self.images, *(column[places] for column in self[1:]))

    def part(self, rows: slice) -> "Batch":
        """Some of the rows."""
        return Batch(*(column[rows] for column in self))


class Batches:
    """The pictures and labels of some rows, in batches on a device."""

    def __init__(self, pixels: NDArray[np.uint8], examples: Examples, size: int, device: torch.device) -> None:
        """Take the store, the rows to draw from, the batch size and the device.

        Raises:
            DataError: a row lies outside the store.
            ConfigError: there are fewer rows than a batch holds.
        """
        if len(examples) and int(examples.index.max()) >= len(pixels):
            raise DataError(f"pixels.npy holds {len(pixels)} pictures, but row {examples.index.max()} is asked for.")
        if size > len(examples):
            raise ConfigError(f"learn.batch: {size}, but there are {len(examples)} training rows; take at most that.")
        self.size, self.device, self._pixels, self._index = size, device, pixels, examples.index
        columns = (examples.labels, examples.ages, examples.genders, examples.races)
        self._columns = [torch.from_numpy(column).to(device) for column in columns]
        self._resident = self._move() if self._fits() else None

    @classmethod
    def whole(cls, pixels: NDArray[np.uint8], examples: Examples, size: int, device: torch.device) -> Self:
        """Batches for judging: the size shrinks to the rows there are."""
        return cls(pixels, examples, max(1, min(size, len(examples))), device)

    def __len__(self) -> int:
        """Batches in an epoch of training; the rows that do not fill one wait for another epoch."""
        return len(self._index) // self.size

    def shuffled(self) -> Iterator[Batch]:
        """One epoch in an order drawn from torch's global random state; all batches are full."""
        order = torch.randperm(len(self._index))
        for start in range(0, len(self) * self.size, self.size):
            yield self._batch(order[start : start + self.size])

    def in_order(self, part: slice = slice(None)) -> Iterator[Batch]:
        """All rows, or a part of them, in their order; the last batch may be short."""
        order = torch.arange(len(self._index))[part]
        for start in range(0, len(order), self.size):
            yield self._batch(order[start : start + self.size])

    def _batch(self, places: Tensor) -> Batch:
        here = places.to(self.device)
        return Batch(self._images(places, here), *(column[here] for column in self._columns))

    def _images(self, places: Tensor, here: Tensor) -> Tensor:
        if self._resident is not None:
            return self._resident[here]
        rows = self._index[places.numpy()]
        ascending = np.argsort(rows)  # the file is read in one direction
        images = np.empty((len(rows), *self._pixels.shape[1:]), dtype=np.uint8)
        images[ascending] = self._pixels[rows[ascending]]
        return torch.from_numpy(images).to(self.device)

    def blocks(self) -> Iterator[Tensor]:
        """All pictures, some at a time, uint8 `(n, s, s, 3)` on the device, in the order of the store."""
        rows = np.sort(self._index)
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


def open_store(path: Path) -> NDArray[np.uint8]:
    """The pixel store, memory-mapped.

    Raises:
        DataError: it is missing, damaged, or does not hold uint8 pictures `(n, s, s, 3)`.
    """
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not a readable pixel store ({error}); run the ingest again.") from error
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.shape[1] != pixels.shape[2]:
        raise DataError(f"{path}: {pixels.dtype} {pixels.shape}, not uint8 (n, size, size, 3); run the ingest again.")
    return pixels  # type: ignore[no-any-return]


def statistics(pictures: Iterable[Tensor]) -> tuple[Channels, Channels]:
    """Mean and standard deviation of each channel of pictures, uint8 `(n, s, s, 3)` at a time, in [0, 1].

    Summed as whole numbers: in float32 the sum stops growing, and UTKFace would have a mean of 0.27, not 0.60. So they
    are the same on every device.

    Raises:
        DataError: a channel is the same everywhere.
    """
    count, sums, squares = 0, np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64)
    for block in pictures:
        levels = block.reshape(-1, 3)
        count += len(levels)
        sums += levels.sum(0, dtype=torch.int64).cpu().numpy()
        squares += levels.int().square_().sum(0, dtype=torch.int64).cpu().numpy()
    mean = sums / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    if not (std > 0).all():
        raise DataError("pixels.npy: a channel has one value in all training pictures; check the source's photographs.")
    return _channels(mean / 255), _channels(std / 255)


def _channels(values: NDArray[np.float64]) -> Channels:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
