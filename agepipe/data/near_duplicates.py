"""Find near duplicates among many pictures, at a cost that does not grow with the square of the rows.

Every thumbnail is hashed to a string of bits, the signs of random projections of its low frequencies (Charikar,
"Similarity estimation techniques from rounding algorithms", 2002). The strings are sorted, and each is compared with
the few that follow it. This is repeated with other random projections, which give other orders, so that a pair of
copies is close in at least one. Hash buckets would grow without bound where all pictures are similar; in a sorted list
a row is compared with `WINDOW` others whatever the pictures. Candidates are verified by their exact correlation.

Thumbnails may be memory-mapped, and the features, which are the largest intermediate result, can be kept in a file.
Then the search allocates some 250 bytes a row.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray

from agepipe.core.artifacts import reserve

WINDOW = 12
"""Number of following rows in a sorted order with which each row is compared."""
BAND = 9
"""Low frequencies along each axis: `BAND * BAND` features, the mean replaced by a constant."""
FLOOR = 4.0
"""Multiple of the noise between copies by which a frequency must vary to have full weight."""
SKETCH_LIMIT = 60
"""Candidates whose 256-bit sketches differ in more bits are not verified. Copies differ in at most 31 (measured),
unrelated faces in about 117."""
FEW = 2000
"""Up to this number of rows every candidate is verified, because the scale of the features is unreliable."""
BLOCK = 8192
"""Rows that are processed at a time, to bound the memory."""

Codes = NDArray[np.uint64]
Indices = NDArray[np.int64]
Verify = Callable[[Indices, Indices], NDArray[np.bool_]]
"""Takes two arrays of rows, `(pairs,)` each; returns which pairs are copies, bool `(pairs,)`."""


class _Mirrored:
    """Chosen thumbnails, and after them their mirror images; rows are read from the thumbnails when they are needed."""

    def __init__(self, thumbs: NDArray[np.uint8], chosen: Indices) -> None:
        self._thumbs, self._chosen = thumbs, chosen

    def __len__(self) -> int:
        return 2 * len(self._chosen)

    def read(self, rows: Indices) -> NDArray[np.uint8]:
        """These rows, uint8 `(rows, side, side)`."""
        count = len(self._chosen)
        found = self._thumbs[self._chosen[rows % count]]
        if (second := rows >= count).any():
            found[second] = found[second][:, :, ::-1]
        return found

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
        """All rows in order, `BLOCK` at a time, each with its place."""
        for start in range(0, len(self), BLOCK):
            stop = min(start + BLOCK, len(self))
            yield slice(start, stop), self.read(np.arange(start, stop, dtype=np.int64))


def joined(
    thumbs: NDArray[np.uint8], threshold: float, chosen: Indices | None = None, scratch: Path | None = None
) -> Indices:
    """Connected components of thumbnails whose correlation, direct or mirrored, is above the threshold.

    Args:
        thumbs: uint8 `(all, side, side)`.
        threshold: Pearson correlation above which two thumbnails are joined.
        chosen: int64 `(n,)`, the rows to join, distinct, in an order that does not depend on the order of the files; by
            default all in their order.
        scratch: a folder for the features; None keeps them in memory.

    Returns:
        int64 `(n,)`: the smallest position in `chosen` of each row's component.
    """
    chosen = np.arange(len(thumbs), dtype=np.int64) if chosen is None else chosen
    count = len(chosen)
    rows = np.arange(count, dtype=np.int64)
    if count < 2:
        return rows
    labels = np.concatenate([rows, rows])  # the second half are the mirror images
    pictures, noise = _Mirrored(thumbs, chosen), 2 * (1 - threshold)
    with _room((len(pictures), BAND * BAND), scratch) as features:
        spread = _features(pictures, noise, features)

        def verify(left: Indices, right: Indices) -> NDArray[np.bool_]:
            same = _within(features, spread, noise, left, right)
            same[same] = correlation(pictures.read, left[same], right[same]) > threshold
            return same

        random = np.random.default_rng(0)
        sketch = np.stack([_code(features, random) for _ in range(4)])
        limit = SKETCH_LIMIT if len(pictures) > FEW else 64 * len(sketch)
        for _ in range(tables(len(pictures))):
            order = np.argsort(_code(features, random), kind="stable").astype(np.int64)
            _join_neighbours(labels, order, sketch, limit, verify)
    return labels[:count]


@contextmanager
def _room(shape: tuple[int, int], scratch: Path | None) -> Iterator[NDArray[np.float32]]:
    """A float32 array of this shape, in memory or in a file without a name in `scratch`."""
    if scratch is None:
        yield np.empty(shape, dtype=np.float32)
        return
    with TemporaryFile(dir=scratch) as file:
        reserve(file.fileno(), int(np.prod(shape)) * np.dtype(np.float32).itemsize)
        yield np.memmap(file, np.float32, "w+", shape=shape)


def alike(words: Codes, mirror: Codes, limit: int) -> Indices:
    """Connected components of hashes that differ, directly or mirrored, in at most `limit` bits.

    Args:
        words: uint64 `(words, n)`, distinct, in an order that does not depend on the order of the files.
        mirror: uint64 `(words,)`: the bits that change if a picture is mirrored.
        limit: Hamming distance up to which two hashes are joined.

    Returns:
        int64 `(n,)`: the smallest row of each row's component.
    """
    count = words.shape[1]
    rows = np.arange(count, dtype=np.int64)
    labels = np.concatenate([rows, rows])
    words = np.concatenate([words, words ^ mirror[:, None]], axis=1)
    random = np.random.default_rng(0)
    bits = np.unpackbits(np.ascontiguousarray(words.T).view(np.uint8), axis=1)
    for _ in range(tables(len(labels))):
        chosen = np.ascontiguousarray(bits[:, random.permutation(bits.shape[1])[:64]])
        order = np.argsort(_packed(chosen), kind="stable").astype(np.int64)
        _join_neighbours(labels, order, words, limit, lambda left, _: np.ones(len(left), dtype=np.bool_))
    return labels[:count]


def tables(count: int) -> int:
    """Number of sorted orders for `count` rows; it grows with their logarithm, for a constant recall."""
    return 8 + int(1.5 * np.log2(max(count, 2)))


def _features(pictures: _Mirrored, noise: float, found: NDArray[np.float32]) -> NDArray[np.float32]:
    """Low frequencies of the normalised thumbnails, scaled to equal weight.

    Each frequency is centred and divided by its standard deviation. A deviation below the differences between copies
    is raised to these, because otherwise only noise would remain, for example where all pictures are copies of one.
    A constant feature makes up for such frequencies, so that pictures that differ by noise alone get the same code.

    Args:
        pictures: `n` thumbnails.
        noise: largest squared distance between two normalised copies.
        found: filled with the features, float32 `(n, BAND * BAND)`.

    Returns:
        The divisor of each feature, float32 `(BAND * BAND,)`.
    """
    basis = _basis(pictures.read(np.zeros(1, dtype=np.int64)).shape[1])
    pixels = len(basis)
    for place, thumbs in pictures.blocks():
        block = thumbs.reshape(-1, pixels).astype(np.float32)
        block -= block.mean(axis=1, keepdims=True)
        norm = np.linalg.norm(block, axis=1, keepdims=True)
        found[place, 1:] = block @ basis / np.maximum(norm, 1e-6)
    mean = _mean(found, np.asarray)
    for block in _blocks(found):
        block -= mean
    variance = _mean(found, np.square)
    floor = FLOOR * max(noise, 1e-3) / pixels
    spread = np.sqrt(variance + floor).astype(np.float32)
    for block in _blocks(found):
        block /= spread
    found[:, 0] = np.sqrt((floor / (variance + floor)).sum())
    return np.concatenate([np.zeros(1, dtype=np.float32), spread])


def _basis(side: int) -> NDArray[np.float32]:
    """The lowest frequencies of a DCT but the mean, of unit length, float32 `(side * side, BAND * BAND - 1)`."""
    grid = (2 * np.arange(side) + 1) * np.arange(BAND)[:, None]
    cosines = np.cos(np.pi * grid / (2 * side)).astype(np.float32)
    basis = np.einsum("ki,lj->ijkl", cosines, cosines).reshape(side * side, -1)[:, 1:]
    return np.asarray(basis / np.linalg.norm(basis, axis=0), dtype=np.float32)


def _blocks(features: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """The features without the constant one, `BLOCK` rows at a time, as views."""
    for start in range(0, len(features), BLOCK):
        yield features[start : start + BLOCK, 1:]


def _mean(
    features: NDArray[np.float32], change: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> NDArray[np.float64]:
    """Mean of each changed feature, float64; summed row after row, so that the blocks do not change the result."""
    total = np.zeros(features.shape[1] - 1, dtype=np.float64)
    for block in _blocks(features):
        total = np.concatenate([total[None], change(block)], dtype=np.float64).sum(axis=0)
    return total / len(features)


def _within(
    features: NDArray[np.float32], spread: NDArray[np.float32], noise: float, left: Indices, right: Indices
) -> NDArray[np.bool_]:
    """Whether pairs may be copies by their low frequencies, bool `(pairs,)`: a quick test that rejects no copy.

    The squared distance of two normalised pictures is 2 - 2 × correlation. In an orthonormal basis the distance of a
    part of their frequencies cannot be larger.
    """
    found = np.empty(len(left), dtype=np.bool_)
    for start in range(0, len(left), BLOCK):
        apart = features[left[start : start + BLOCK]]
        apart -= features[right[start : start + BLOCK]]
        apart *= spread
        found[start : start + BLOCK] = np.einsum("ij,ij->i", apart, apart) <= noise + 1e-4
    return found


def _code(features: NDArray[np.float32], random: np.random.Generator) -> Codes:
    """Signs of 64 random projections as one integer, uint64 `(n,)`; the first projection is the highest bit."""
    planes = random.standard_normal((features.shape[1], 64)).astype(np.float32)
    codes = np.empty(len(features), dtype=np.uint64)
    for start in range(0, len(features), BLOCK):
        signs = features[start : start + BLOCK] @ planes > 0
        codes[start : start + BLOCK] = _packed(signs)
    return codes


def _packed(bits: NDArray[np.bool_] | NDArray[np.uint8]) -> Codes:
    """64 bits a row, `(n, 64)`, as one integer, uint64 `(n,)`; the first is the highest bit."""
    return np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)


def _join_neighbours(labels: Indices, order: Indices, sketch: Codes, limit: int, verify: Verify) -> None:
    """Compare each row with those that follow it in one order, and merge the labels of copies in place."""
    ordered = sketch[:, order]
    for step in range(1, min(WINDOW, len(order) - 1) + 1):
        differing = np.zeros(len(order) - step, dtype=np.uint16)
        for word in ordered:
            differing += np.bitwise_count(word[:-step] ^ word[step:])
        at = np.flatnonzero(differing <= limit)
        left, right = order[at], order[at + step]
        apart = labels[left] != labels[right]  # pairs that are joined already need no verification
        left, right = left[apart], right[apart]
        same = verify(left, right)
        merge(labels, left[same], right[same])


def correlation(read: Callable[[Indices], NDArray[np.uint8]], left: Indices, right: Indices) -> NDArray[np.float64]:
    """Pearson correlation of pairs of pictures, float64 `(pairs,)`; 0 where one is constant.

    The sums are integers, so that the result does not depend on the order of summation.

    Args:
        read: returns the pictures of some rows, uint8 `(rows, ...)`.
        left: rows of the first picture of each pair.
        right: rows of the second picture of each pair.
    """
    found = np.zeros(len(left), dtype=np.float64)
    for start in range(0, len(left), BLOCK):
        a, b = (
            pictures.reshape(len(pictures), -1).astype(np.int32)
            for pictures in (read(left[start : start + BLOCK]), read(right[start : start + BLOCK]))
        )
        pixels = a.shape[1]
        ab, aa, bb = (np.einsum("ij,ij->i", x, y).astype(np.int64) for x, y in ((a, b), (a, a), (b, b)))
        sa, sb = a.sum(axis=1, dtype=np.int64), b.sum(axis=1, dtype=np.int64)
        spread = np.sqrt((pixels * aa - sa * sa).astype(np.float64)) * np.sqrt((pixels * bb - sb * sb).astype(float))
        covariance = (pixels * ab - sa * sb).astype(np.float64)
        np.divide(covariance, spread, out=found[start : start + BLOCK], where=spread > 0)
    return found


def merge(labels: Indices, left: Indices, right: Indices) -> None:
    """Join the components of `left[i]` and `right[i]` for every i, in place; the smaller label is kept.

    A vectorised union-find: each root is attached to the smallest root that it is joined with, then all paths are
    shortened, until nothing changes.
    """
    while len(left):
        a, b = labels[left], labels[right]
        apart = a != b
        left, right, a, b = left[apart], right[apart], a[apart], b[apart]
        np.minimum.at(labels, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(shorter := labels[labels], labels):
            labels[:] = shorter
