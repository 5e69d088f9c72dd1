"""Find near duplicates among many pictures, at a cost that does not grow with the square of the rows.

Every thumbnail is hashed to a string of bits, the signs of random projections of its low frequencies (Charikar,
"Similarity estimation techniques from rounding algorithms", 2002). The strings are sorted, and each is compared with
the few that follow it. This is repeated with other random projections, which give other orders, so that a pair of
copies is close in at least one. Hash buckets would grow without bound where all pictures are similar; in a sorted list
a row is compared with `WINDOW` others whatever the pictures. Candidates are verified by their exact correlation.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

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


def joined(thumbs: NDArray[np.uint8], threshold: float) -> Indices:
    """Connected components of thumbnails whose correlation, direct or mirrored, is above the threshold.

    Args:
        thumbs: uint8 `(n, side, side)`, distinct, in an order that does not depend on the order of the files.
        threshold: Pearson correlation above which two thumbnails are joined.

    Returns:
        int64 `(n,)`: the smallest row of each row's component.
    """
    count = len(thumbs)
    rows = np.arange(count, dtype=np.int64)
    if count < 2:
        return rows
    labels = np.concatenate([rows, rows])  # the second half are the mirror images
    thumbs = np.concatenate([thumbs, thumbs[:, :, ::-1]])
    flat = thumbs.reshape(len(thumbs), -1)
    noise = 2 * (1 - threshold)
    features, spread = _features(thumbs, noise)

    def verify(left: Indices, right: Indices) -> NDArray[np.bool_]:
        same = _within(features, spread, noise, left, right)
        same[same] = correlation(flat, left[same], right[same]) > threshold
        return same

    random = np.random.default_rng(0)
    sketch = np.stack([_code(features, random) for _ in range(4)])
    limit = SKETCH_LIMIT if len(thumbs) > FEW else 64 * len(sketch)
    for _ in range(tables(len(thumbs))):
        order = np.argsort(_code(features, random), kind="stable").astype(np.int64)
        _join_neighbours(labels, order, sketch, limit, verify)
    return labels[:count]


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


def _features(thumbs: NDArray[np.uint8], noise: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Low frequencies of the normalised thumbnails, scaled to equal weight.

    Each frequency is centred and divided by its standard deviation. A deviation below the differences between copies
    is raised to these, because otherwise only noise would remain, for example where all pictures are copies of one.
    A constant feature makes up for such frequencies, so that pictures that differ by noise alone get the same code.

    Args:
        thumbs: uint8 `(n, side, side)`.
        noise: largest squared distance between two normalised copies.

    Returns:
        The features, float32 `(n, BAND * BAND)`, and the divisor of each, float32 `(BAND * BAND,)`.
    """
    side = thumbs.shape[1]
    grid = (2 * np.arange(side) + 1) * np.arange(BAND)[:, None]
    cosines = np.cos(np.pi * grid / (2 * side)).astype(np.float32)
    basis = np.einsum("ki,lj->ijkl", cosines, cosines).reshape(side * side, -1)[:, 1:]
    basis /= np.linalg.norm(basis, axis=0)
    found = np.empty((len(thumbs), BAND * BAND), dtype=np.float32)
    for start in range(0, len(thumbs), BLOCK):
        block = thumbs[start : start + BLOCK].reshape(-1, side * side).astype(np.float32)
        block -= block.mean(axis=1, keepdims=True)
        norm = np.linalg.norm(block, axis=1, keepdims=True)
        found[start : start + BLOCK, 1:] = block @ basis / np.maximum(norm, 1e-6)
    varying = found[:, 1:]
    varying -= varying.mean(axis=0, dtype=np.float64)
    variance = np.square(varying).mean(axis=0, dtype=np.float64)
    floor = FLOOR * max(noise, 1e-3) / side**2
    spread = np.sqrt(variance + floor).astype(np.float32)
    varying /= spread
    found[:, 0] = np.sqrt((floor / (variance + floor)).sum())
    return found, np.append(np.float32(0), spread)


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


def correlation(flat: NDArray[np.uint8], left: Indices, right: Indices) -> NDArray[np.float64]:
    """Pearson correlation of pairs of rows of `flat` `(n, pixels)`, float64 `(pairs,)`; 0 where a row is constant.

    The sums are integers, so that the result does not depend on the order of summation.
    """
    found = np.zeros(len(left), dtype=np.float64)
    pixels = flat.shape[1]
    for start in range(0, len(left), BLOCK):
        a = flat[left[start : start + BLOCK]].astype(np.int32)
        b = flat[right[start : start + BLOCK]].astype(np.int32)
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
